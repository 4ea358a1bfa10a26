"""Embeddings for contrastive distillation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.connectors.base import BaseConnector


class CRDConnector(BaseConnector):
    """Linear layer and L2 normalisation, as ``CRDLoss`` wants both sides.

    Contrastive Representation Distillation (Tian et al. 2020, arXiv 1910.10699), section 3.

    Args:
        dim_in: values per sample.
        dim_out: length of the embedding.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(self, dim_in: int = 1024, dim_out: int = 128, init_cfg: Mapping[str, Any] | None = None) -> None:
        super().__init__(init_cfg)
        self.linear = nn.Linear(dim_in, dim_out)

    def forward_train(self, feature: Tensor) -> Tensor:
        """(N, ...) of ``dim_in`` values -> (N, dim_out) of length 1."""
        return functional.normalize(self.linear(feature.flatten(1)), dim=1)
