"""What every searchable backbone does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.errors import RecipeError

B = TypeVar("B", bound="SearchableBackbone")


class SearchableBackbone(nn.Module, ABC):
    """Images (N, C, H, W) -> a tuple of feature maps, those of the stages in ``out_indices``.

    Args:
        num_stages: stages that ``out_indices`` may name.
        out_indices: stages whose outputs are returned.
        frozen_stages: the first of them are not trained; -1: all are, 0: all but the stem.
        norm_eval: batch norms use their running statistics in training too.
        init_cfg: mmengine's initialisation, applied by ``init_weights()``.

    Raises:
        RecipeError: a stage that there is not.
    """

    def __init__(
        self,
        num_stages: int,
        out_indices: Sequence[int],
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__()
        wrong = [index for index in out_indices if not 0 <= index < num_stages]
        if wrong or not out_indices:
            raise RecipeError(f"{type(self).__name__}: expected out_indices from 0 to {num_stages - 1}, got {wrong}")
        if not -1 <= frozen_stages < num_stages:
            raise RecipeError(
                f"{type(self).__name__}: expected frozen_stages from -1 to {num_stages - 1}, got {frozen_stages}"
            )
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.init_cfg = init_cfg

    @abstractmethod
    def stem_and_stages(self) -> list[nn.Module]:
        """The stem and the stages, in order, as ``frozen_stages`` counts them."""

    def train(self: B, mode: bool = True) -> B:
        """Keep frozen stages, and with ``norm_eval`` all batch norms, in eval mode."""
        super().train(mode)
        if self.frozen_stages >= 0:
            for stage in self.stem_and_stages()[: self.frozen_stages + 1]:
                stage.eval().requires_grad_(False)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def init_weights(self) -> None:
        """Initialise by ``init_cfg``, a checkpoint for instance; without one the weights stay as they were drawn."""
        if self.init_cfg:
            from mmengine.model import initialize

            initialize(self, self.init_cfg)
