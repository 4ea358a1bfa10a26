"""Learned relative positions of image patches."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError


class RelativePosition2D(nn.Module):
    """An embedding of the distance between two patches, the sum of a vertical and a horizontal one (AutoFormer).

    Row 0 of each table belongs to the class token, rows 1 to 2 * max + 1 to the distances -max to max; larger ones are
    clipped.

    Args:
        head_dims: channels of the embedding.
        max_relative_position: largest distance told apart.
    """

    def __init__(self, head_dims: int, max_relative_position: int = 14) -> None:
        super().__init__()
        self.head_dims = head_dims
        self.max_relative_position = max_relative_position
        self.embeddings_table_v = nn.Parameter(torch.empty(max_relative_position * 2 + 2, head_dims))
        self.embeddings_table_h = nn.Parameter(torch.empty(max_relative_position * 2 + 2, head_dims))
        nn.init.trunc_normal_(self.embeddings_table_v, std=0.02)
        nn.init.trunc_normal_(self.embeddings_table_h, std=0.02)

    def forward(self, length_q: int, length_k: int) -> Tensor:
        """Embeddings (length_q, length_k, head_dims) of a class token and a square of patches."""
        return self.look_up(self.embeddings_table_v, self.embeddings_table_h, length_q, length_k)

    def look_up(self, table_v: Tensor, table_h: Tensor, length_q: int, length_k: int) -> Tensor:
        """The same from tables (2 * max + 2, channels)."""
        side = int((length_q - 1) ** 0.5)
        if side * side != length_q - 1 or length_q != length_k:
            raise ModelError(
                f"RelativePosition2D: expected a class token and a square of patches, "
                f"got lengths {length_q} and {length_k}"
            )
        place = torch.arange(side * side, device=table_v.device)
        row, column = place // side, place % side
        rows = self._index(row[None] - row[:, None])
        columns = self._index(column[None] - column[:, None])
        return table_v[rows] + table_h[columns]

    def _index(self, distance: Tensor) -> Tensor:
        limit = self.max_relative_position
        return nn.functional.pad(distance.clamp(-limit, limit) + limit + 1, (1, 0, 1, 0), value=0)
