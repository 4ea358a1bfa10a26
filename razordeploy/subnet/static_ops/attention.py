"""Multi-head attention with separate projections and relative positions, as AutoFormer searches it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.subnet.static_ops.relative_position import RelativePosition2D


class MultiheadAttention(nn.Module):
    """Self attention whose heads have a width of their own, whatever the width of the tokens.

    Args:
        embed_dims: channels of the output tokens.
        num_heads: attention heads.
        input_dims: channels of the input tokens; None: ``embed_dims``.
        attn_drop_rate: dropout of the attention weights.
        relative_position: add ``RelativePosition2D`` to keys and values.
        max_relative_position: its largest distance.
        out_drop_rate: dropout of the output.
        qkv_bias: biases of the query, key and value projections.
        qk_scale: factor of the queries; None: head_dims ** -0.5.
        proj_bias: bias of the output projection.
        head_dims: channels of one head.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        input_dims: int | None = None,
        attn_drop_rate: float = 0.0,
        relative_position: bool = True,
        max_relative_position: int = 14,
        out_drop_rate: float = 0.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        proj_bias: bool = True,
        head_dims: int = 64,
    ) -> None:
        super().__init__()
        self.embed_dims = embed_dims
        self.num_heads = num_heads
        self.input_dims = input_dims or embed_dims
        self.head_dims = head_dims
        self.q_embed_dims = num_heads * head_dims
        self.scale = qk_scale or head_dims**-0.5
        self.attn_drop_rate = attn_drop_rate
        self.relative_position = relative_position
        self.max_relative_position = max_relative_position
        self.w_qs = nn.Linear(self.input_dims, self.q_embed_dims, bias=qkv_bias)
        self.w_ks = nn.Linear(self.input_dims, self.q_embed_dims, bias=qkv_bias)
        self.w_vs = nn.Linear(self.input_dims, self.q_embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(self.q_embed_dims, embed_dims, bias=proj_bias)
        self.attn_drop = nn.Dropout(attn_drop_rate)
        self.out_drop = nn.Dropout(out_drop_rate)
        if relative_position:
            self.rel_pos_embed_k = RelativePosition2D(head_dims, max_relative_position)
            self.rel_pos_embed_v = RelativePosition2D(head_dims, max_relative_position)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, input_dims) -> (N, L, embed_dims)."""
        q, k, v = self.w_qs(x), self.w_ks(x), self.w_vs(x)
        return self.out_drop(self.proj(self.attend(q, k, v, self.num_heads)))

    def attend(self, q: Tensor, k: Tensor, v: Tensor, num_heads: int) -> Tensor:
        """Queries, keys and values (N, L, heads * d) -> attended values (N, L, heads * d)."""
        length = q.size(1)
        q, k, v = (part.unflatten(2, (num_heads, -1)) for part in (q * self.scale, k, v))
        scores = torch.einsum("nqhd,nkhd->nhqk", q, k)
        if self.relative_position:
            scores = scores + torch.einsum("nqhd,qkd->nhqk", q, self.rel_pos_embed_k(length, length))
        weights = self.attn_drop(functional.softmax(scores, dim=-1))
        out = torch.einsum("nhqk,nkhd->nqhd", weights, v)
        if self.relative_position:
            out = out + torch.einsum("nhqk,qkd->nqhd", weights, self.rel_pos_embed_v(length, length))
        return out.flatten(2)
