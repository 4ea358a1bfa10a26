"""What all connectors share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn


class BaseConnector(nn.Module, ABC):
    """A module between a recorded feature and a loss; trained with the student, gone afterwards.

    Args:
        init_cfg: mmengine's initialisation config, applied by ``init_weights()``.
    """

    def __init__(self, init_cfg: Mapping[str, Any] | list[Mapping[str, Any]] | None = None) -> None:
        super().__init__()
        self.init_cfg = init_cfg

    def forward(self, feature: Any) -> Any:
        """The feature as the loss wants it."""
        return self.forward_train(feature)

    @abstractmethod
    def forward_train(self, feature: Any) -> Any:
        """What a subclass does while the student is trained."""

    def init_weights(self) -> None:
        """Apply ``init_cfg``; mmengine calls this before training."""
        if self.init_cfg:
            from mmengine.model import initialize

            initialize(self, self.init_cfg)
