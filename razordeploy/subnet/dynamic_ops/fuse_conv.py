"""Convolutions whose filters are mixtures of all filters: dynamic-coded filter fusion."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.conv import DynamicConv2d
from razordeploy.subnet.selection import kept, take


class FuseConv2d(DynamicConv2d):
    """A convolution of DCFF (Lin et al. 2021, arXiv 2107.06916): its kept filters are fused from all of them.

    With C filters of which m are kept, ``get_pooled_channel`` gives the fusion (m, C): rows of the softmax of negative
    distances between filters, of the m filters that differ most from the rest. ``set_forward_args`` puts it in use;
    without it, the convolution slices like any other.
    """

    fusion: Tensor | None

    def _init_dynamic(self, static_type: Any = None) -> None:
        super()._init_dynamic(static_type)
        self.register_buffer("fusion", None, persistent=False)

    def set_forward_args(self, choice: Tensor | None) -> None:
        """Use the fusion ``choice`` (kept, out_channels); None slices."""
        if choice is not None and (choice.dim() != 2 or choice.size(1) != self.out_channels):
            raise ModelError(
                f"FuseConv2d: expected a fusion of shape (kept, {self.out_channels}), got {tuple(choice.shape)}"
            )
        self.fusion = choice

    @torch.no_grad()
    def get_pooled_channel(self, tau: float) -> Tensor:
        """The fusion (kept, out_channels) at temperature ``tau``.

        Equations 3 to 5 of the paper: P = softmax(-D / tau) over the distances D between filters, the importance of a
        filter is its mean Kullback-Leibler divergence from the others, and the most important filters keep their rows,
        in ascending order. As ``tau`` goes to 0 each row becomes the one-hot of its own filter.
        """
        if not tau > 0:
            raise ModelError(f"FuseConv2d: expected a temperature above 0, got {tau}")
        filters = self.weight.detach().flatten(1).double()
        distance = torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist")
        log_p = functional.log_softmax(-distance / tau, dim=1)
        p = log_p.exp()
        importance = (p * (log_p - log_p.mean(0))).sum(1)
        mask = self.mask_of("out_channels")
        count = self.out_channels if mask is None else int(mask.sum())
        rows = importance.topk(count).indices.sort().values
        return p[rows].to(self.weight.dtype)

    def _get_dynamic_params_by_mutable_channels(
        self, weight: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        if self.fusion is None:
            return super()._get_dynamic_params_by_mutable_channels(weight, bias)
        in_mask, out_mask = self._masks()
        count = self.out_channels if out_mask is None else int(out_mask.sum())
        if self.fusion.size(0) != count:
            raise ModelError(
                f"FuseConv2d: the fusion has {self.fusion.size(0)} filters, but {count} channels are kept",
                hint="call calc_information() of the mutator after changing choices",
            )
        if self.groups not in (1, self.out_channels):
            raise ModelError(f"FuseConv2d: filters of different groups cannot be fused, got {self.groups} groups")
        if self.groups == 1:
            weight = take(weight, in_mask, 1)
        fused = (self.fusion @ weight.flatten(1)).unflatten(1, weight.shape[1:])
        return fused, None if bias is None else self.fusion @ bias

    def _fill_into(self, plain: Any) -> None:
        self._forget_fusion(plain)
        if self.fusion is None:
            return
        rows = kept(self.channel_mask("out_channels"))
        with torch.no_grad():
            filters = (self.fusion @ self.weight.flatten(1)).unflatten(1, self.weight.shape[1:])
            plain.weight = nn.Parameter(self.weight.index_copy(0, rows, filters), self.weight.requires_grad)
            if self.bias is not None:
                plain.bias = nn.Parameter(
                    self.bias.index_copy(0, rows, self.fusion @ self.bias), self.bias.requires_grad
                )

    def _slice_into(self, static: Any) -> None:
        super()._slice_into(static)
        self._forget_fusion(static)

    def _forget_fusion(self, static: Any) -> None:
        static._buffers.pop("fusion", None)
        static._non_persistent_buffers_set = static._non_persistent_buffers_set - {"fusion"}
