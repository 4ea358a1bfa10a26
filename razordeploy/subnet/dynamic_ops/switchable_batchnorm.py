"""Batch norms of slimmable networks: one for each switch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.batchnorm import DynamicBatchNorm2d
from razordeploy.subnet.selection import kept


class SwitchableBatchNorm2d(DynamicBatchNorm2d):
    """A batch norm with parameters and statistics of its own for each switch (Yu et al. 2019, arXiv 1812.08928, 3.3).

    The first switch of full width uses those of the operation itself. The others are ``candidate_bn.<width>``, and
    ``candidate_bn.<width>_<switch>`` where an earlier switch has the same width: what comes before it differs, and so
    do its statistics. Until ``init_candidates`` is called it slices like any other batch norm.
    """

    dynamic_state: ClassVar[tuple[str, ...]] = (*DynamicBatchNorm2d.dynamic_state, "switch", "_keys")
    candidate_bn: nn.ModuleDict
    switch: int | None
    """Index of the switch in use; None: the first of the width that is kept."""
    _keys: list[tuple[int, str | None]]
    """Width and key of each switch; None: the operation itself."""

    def _init_dynamic(self, static_type: type[nn.Module] | None = None) -> None:
        super()._init_dynamic(static_type)
        self.candidate_bn = nn.ModuleDict()
        self.switch = None
        self._keys = []

    def init_candidates(self, candidates: Sequence[int]) -> None:
        """Make the batch norm of each switch, by its width; each begins with the first channels of this one.

        Raises:
            ModelError: a width that is no int from 1 to ``num_features``, or candidates that are there already.
        """
        if self._keys:
            raise ModelError("SwitchableBatchNorm2d has its candidates already")
        for index, width in enumerate(candidates):
            if isinstance(width, bool) or not isinstance(width, int) or not 1 <= width <= self.num_features:
                raise ModelError(f"SwitchableBatchNorm2d: expected widths from 1 to {self.num_features}, got {width!r}")
            repeated = any(width == other for other, _ in self._keys)
            key = f"{width}_{index}" if repeated else None if width == self.num_features else str(width)
            if key is not None:
                self.candidate_bn[key] = self._candidate(width)
            self._keys.append((width, key))

    def activated_channel_num(self) -> int:
        """Channels that are kept."""
        mask = self.mask_of("num_features")
        return self.num_features if mask is None else int(mask.sum())

    def _candidate(self, width: int) -> nn.BatchNorm2d:
        where = self.weight if self.affine else self.running_mean
        new = nn.BatchNorm2d(width, self.eps, self.momentum, self.affine, self.track_running_stats)
        if where is not None:
            new = new.to(where.device, where.dtype)
        own = self.state_dict()
        for name, value in new.state_dict().items():
            value.copy_(own[name][:width] if value.dim() else own[name])
        return new.train(self.training)

    def _current(self) -> nn.BatchNorm2d | None:
        """The batch norm in use; None: the operation itself."""
        width = self.activated_channel_num()
        if not self._keys:
            return None
        if self.switch is not None and self._keys[self.switch][0] == width:
            key = self._keys[self.switch][1]
        elif width == self.num_features:
            key = None
        else:
            found = next((key for other, key in self._keys if other == width), None)
            if found is None:
                known = sorted({other for other, _ in self._keys} | {self.num_features})
                raise ModelError(f"SwitchableBatchNorm2d: no batch norm for {width} channels, expected one of {known}")
            key = found
        return None if key is None else self.candidate_bn[key]  # type: ignore[return-value]

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
