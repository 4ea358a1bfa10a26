"""Observers that estimate nothing: the range is given, comes from elsewhere, or the values are only kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.observers.minmax import MinMaxObserver
from razordeploy.quantization.qparams import representable_range


class _RangelessObserver(Observer):
    """Looks at nothing and keeps nothing."""

    needs_data = False
    why = ""

    def observe(self, x: Tensor) -> None:
        """Do nothing."""

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        """Keep nothing."""

    def _range(self, scheme: QScheme) -> NoReturn:
        raise RecipeError(f"{type(self).__name__} has no range: {self.why}")


class NoopObserver(_RangelessObserver):
    """Does nothing: for values that stay float."""

    why = "the value that it is on stays float"


class PlaceholderObserver(_RangelessObserver):
    """Marks a value whose range is only known at run time (dynamic quantization)."""

    why = "dynamic quantization measures it at run time"


class ReuseInputObserver(_RangelessObserver):
    """Does nothing: the operation passes its input's grid on (reshape, max-pool), so the range is the input's."""

    why = "the value shares the grid of the operation's input; put both into one group and ask the input's observer"


class FixedQParamsObserver(Observer):
    """A scale and zero point that are given, for outputs whose range is known (sigmoid, softmax): data is ignored.

    ``scale`` and ``zero_point`` are numbers, or sequences with one entry a channel.
    """

    needs_data = False
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self, *, scale: float | Sequence[float], zero_point: int | Sequence[int] = 0, ch_axis: int | None = None
    ) -> None:
        super().__init__(ch_axis=ch_axis)
        scales = torch.as_tensor(scale, dtype=torch.float32)
        zero_points = torch.as_tensor(zero_point, dtype=torch.int64)
        if not bool(((scales > 0) & torch.isfinite(scales)).all()):
            raise RecipeError(f"expected a positive, finite scale, got {scale}")
        if scales.ndim > 1 or zero_points.shape not in ((), scales.shape):
            raise RecipeError(f"expected scale and zero_point of one shape, got {scale} and {zero_point}")
        self.register_buffer("scale", scales)
        self.register_buffer("zero_point", zero_points.expand(scales.shape).clone())

    def observe(self, x: Tensor) -> None:
        """Count the samples, and look at nothing else."""
        self.num_samples += x.shape[0] if x.ndim else 1

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        """Keep nothing."""

    def _range(self, scheme: QScheme) -> tuple[Tensor, Tensor]:
        return representable_range(self.scale, self.zero_point, scheme)


class RecordingObserver(MinMaxObserver):
    """Keeps the first ``max_values`` values for a look at them, and the range of all of them.

    ``values`` is a float32 vector in the order in which the values came; it never grows over the bound.
    """

    values: Tensor

    def __init__(self, *, max_values: int = 65536, ch_axis: int | None = None) -> None:
        super().__init__(ch_axis=ch_axis)
        if max_values < 1:
            raise RecipeError(f"expected max_values of 1 or more, got {max_values}")
        self.max_values = max_values
        self.register_buffer("values", torch.zeros(0))

    def reset(self) -> None:
        """Forget everything observed."""
        super().reset()
        self.values = self.values[:0].clone()

    def _update(self, x: Tensor, low: Tensor, high: Tensor) -> None:
        super()._update(x, low, high)
        room = self.max_values - self.values.numel()
        if room > 0:
            self.values = torch.cat([self.values, x.flatten()[:room]])
