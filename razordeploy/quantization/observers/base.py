"""What every range estimator is: a module that looks at tensors and later gives a range for a grid."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.growing_state import GrowingState


def split_channels(x: Tensor, ch_axis: int) -> Tensor:
    """View ``x`` as ``(before, C, after)`` around its channel axis."""
    if not -x.ndim <= ch_axis < x.ndim:
        raise DataError(f"expected a tensor with an axis {ch_axis}, got shape {tuple(x.shape)}")
    axis = ch_axis % x.ndim
    before, channels = x.shape[:axis].numel(), x.shape[axis]
    return x.reshape(before, channels, x.numel() // (before * channels))


def _in_memory_order(x: Tensor) -> Tensor:
    """View the elements as they lie in memory; a reduction over channels-last strides would copy the tensor first."""
    dense = x.ndim > 1 and not x.is_contiguous() and torch.ops.aten.is_non_overlapping_and_dense(x)
    return x.as_strided((x.numel(),), (1,)) if dense else x


def _finite(extremes: Tensor) -> bool:
    # Four small operations on a tensor cost more than one number costs to read.
    return bool(torch.isfinite(extremes).all()) if extremes.dim() else math.isfinite(extremes.item())


def aminmax(x: Tensor, ch_axis: int | None) -> tuple[Tensor, Tensor]:
    """Minimum and maximum of ``x``, without a copy: 0-d, or ``(C,)`` along ``ch_axis``."""
    if ch_axis is None:
        flat = _in_memory_order(x)
        return flat.amin(), flat.amax()
    parts = split_channels(x, ch_axis)
    # torch.aminmax takes half as long again as the two reductions, and along an axis, not vectorised, ten times.
    return parts.amin((0, 2)), parts.amax((0, 2))


class Observer(GrowingState, ABC):
    """Base of the range estimators; it cannot be built itself.

    A subclass writes ``_update(x, low, high)`` and ``_range(scheme)``, and keeps its state in buffers. The state is
    independent of the grid: any number of schemes may ask for a range after one pass over the data.

    NaN and infinities are counted as 0 and remembered in ``non_finite()``; the caller decides what they mean.
    """

    needs_data = True
    """False for observers whose range is known without looking at anything."""

    num_samples: Tensor
    num_channels: Tensor
    saw_non_finite: Tensor

    def __init__(self, *, ch_axis: int | None = None) -> None:
        super().__init__()
        self.ch_axis = ch_axis
        self.register_buffer("num_samples", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_channels", torch.zeros((), dtype=torch.int64))
        self.register_buffer("saw_non_finite", torch.zeros((), dtype=torch.bool))

    @property
    def count(self) -> int:
        """Number of samples seen (sizes of axis 0, summed)."""
        return int(self.num_samples)

    def non_finite(self) -> bool:
        """Say whether any observed tensor held a NaN or an infinity."""
        return bool(self.saw_non_finite)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Take the statistics of ``x``: any shape and dtype, axis 0 is the batch; an empty tensor is ignored."""
        if x.numel() == 0:
            return
        x = x.detach().to(torch.float32)
        low, high = self._aminmax(x)
        # One test on the extremes finds every NaN and infinity: aminmax propagates both.
        if not (_finite(low) and _finite(high)):
            self.saw_non_finite.fill_(True)
            x = x.nan_to_num(0.0, 0.0, 0.0)
            low, high = self._aminmax(x)
        if self.ch_axis is not None:
            self._check_channels(low.shape[-1], x)
        self.num_samples += x.shape[0] if x.ndim else 1
        self._update(x, low, high)

    def forward(self, x: Tensor) -> Tensor:
        """Observe ``x`` and return it unchanged."""
        self.observe(x)
        return x

    @torch.no_grad()
    def range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        """Give the clipping range for a grid: two float32 tensors, 0-d or ``(C,)`` for a per-channel scheme.

        Statistics kept per channel also serve a per-tensor scheme. Raises ``DataError`` when nothing was observed and
        ``RecipeError`` when the scheme wants channels that were not kept apart.
        """
        if scheme.ch_axis is not None and scheme.ch_axis != self.ch_axis and self.needs_data:
            raise RecipeError(
                f"the scheme wants a range per channel of axis {scheme.ch_axis}, but this {type(self).__name__} "
                f"has ch_axis={self.ch_axis}",
                hint=f"build the observer with ch_axis={scheme.ch_axis}",
            )
        if self.needs_data and self.count == 0:
            raise DataError(
                f"{type(self).__name__} has observed no data, so it has no range",
                hint="run calibration data through the model first",
            )
        low, high = self._range(scheme)
        if scheme.ch_axis is None and low.ndim:
            low, high = low.amin(), high.amax()
        return low.to(torch.float32), high.to(torch.float32)

    def reset(self) -> None:
        """Forget everything observed."""
        self.num_samples.zero_()
        self.num_channels.zero_()
        self.saw_non_finite.fill_(False)

    def _check_channels(self, channels: int, x: Tensor) -> None:
        if self.count and channels != int(self.num_channels):
            raise DataError(
                f"expected {int(self.num_channels)} channels on axis {self.ch_axis}, as in the tensors before, "
                f"got {channels} in a tensor of shape {tuple(x.shape)}",
                hint="one observer serves one tensor of the model; a batch axis is not a channel axis",
            )
        self.num_channels.fill_(channels)

    def _aminmax(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return aminmax(x, self.ch_axis)

    @abstractmethod
    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        """Take in one finite float32 tensor and its extremes as ``_aminmax`` gives them."""

    @abstractmethod
    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        """Give the range for a grid: 0-d or ``(C,)``."""
