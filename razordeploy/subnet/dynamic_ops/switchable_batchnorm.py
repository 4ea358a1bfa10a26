"""Batch norms of slimmable networks: one for each width."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.batchnorm import DynamicBatchNorm2d
from razordeploy.subnet.selection import kept


class SwitchableBatchNorm2d(DynamicBatchNorm2d):
    """A batch norm with parameters and statistics of its own for each width (Yu et al. 2019, arXiv 1812.08928, 3.3).

    The full width uses those of the operation itself, the others ``candidate_bn.<width>``.
    """

    candidate_bn: nn.ModuleDict

    def _init_dynamic(self, static_type: type[nn.Module] | None = None) -> None:
        super()._init_dynamic(static_type)
        self.candidate_bn = nn.ModuleDict()

    def init_candidates(self, candidates: Iterable[int]) -> None:
        """Make the batch norm of each width; it begins with the values of the first channels of this one.

        Raises:
            ModelError: a width that is no int from 1 to ``num_features``.
        """
        for width in candidates:
            if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= self.num_features:
                raise ModelError(f"SwitchableBatchNorm2d: expected widths from 1 to {self.num_features}, got {width!r}")
            if width != self.num_features and str(width) not in self.candidate_bn:
                self.candidate_bn[str(width)] = self._candidate(width)

    def activated_channel_num(self) -> int:
        """Channels that are kept."""
        mask = self.mask_of("num_features")
        return self.num_features if mask is None else int(mask.sum())

    def _candidate(self, width: int) -> nn.BatchNorm2d:
        new = nn.BatchNorm2d(
            width,
            self.eps,
            self.momentum,
            self.affine,
            self.track_running_stats,
            device=None if self.weight is None else self.weight.device,
            dtype=None if self.weight is None else self.weight.dtype,
        )
        with torch.no_grad():
            for name, value in new.state_dict().items():
                value.copy_(self.state_dict()[name][:width] if value.dim() else self.state_dict()[name])
        return new.train(self.training)

    def _current(self) -> nn.BatchNorm2d | None:
        width = self.activated_channel_num()
        if width == self.num_features:
            return None
        if str(width) not in self.candidate_bn:
            known = sorted([*map(int, self.candidate_bn), self.num_features])
            raise ModelError(f"SwitchableBatchNorm2d: no batch norm for {width} channels, expected one of {known}")
        return self.candidate_bn[str(width)]  # type: ignore[return-value]

    def _forward_sliced(self, x: Tensor) -> Tensor:
        candidate = self._current()
        return super()._forward_sliced(x) if candidate is None else candidate(x)

    def _fill_into(self, plain: Any) -> None:
        candidate = self._current()
        plain._modules.pop("candidate_bn", None)
        if candidate is None:
            return
        rows = kept(self.channel_mask("num_features"))
        with torch.no_grad():
            for name, value in [*candidate.named_parameters(), *candidate.named_buffers()]:
                old = self.get_parameter(name) if name in self._parameters else self.get_buffer(name)
                new = old.index_copy(0, rows.to(old.device), value) if value.dim() else value.clone()
                plain.__setattr__(name, nn.Parameter(new, old.requires_grad) if name in self._parameters else new)

    def _slice_into(self, static: Any) -> None:
        candidate = self._current()
        static._modules.pop("candidate_bn", None)
        if candidate is None:
            super()._slice_into(static)
            return
        chosen = copy.deepcopy(candidate)
        static.num_features = chosen.num_features
        static._parameters.update(chosen._parameters)
        static._buffers.update(chosen._buffers)
