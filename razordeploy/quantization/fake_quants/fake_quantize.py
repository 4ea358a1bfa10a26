"""Fake quantization with a scale that is observed or given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.observers.minmax import MovingAverageMinMaxObserver
from razordeploy.quantization.observers.passive import FixedQParamsObserver, NoopObserver
from razordeploy.quantization.plan import QParams


class FakeQuantize(FakeQuantizeBase):
    """Rounds to a grid that the observer chooses; the gradient passes straight through inside the range."""

    @classmethod
    def from_qparams(cls, q: QParams) -> FakeQuantize:
        """Build one with a fixed scale and zero point, whose observer is off."""
        module = cls(scheme=q.scheme, observer=NoopObserver())
        module.disable_observer()
        module.set_qparams(q)
        return module


class FixedQParamsFakeQuantize(FakeQuantizeBase):
    """Rounds to a grid given as numbers (sigmoid: 1/256 and 0); observing changes nothing."""

    def __init__(self, *, scheme: QScheme, scale: float | Sequence[float], zero_point: int | Sequence[int] = 0) -> None:
        fixed = FixedQParamsObserver(scale=scale, zero_point=zero_point, ch_axis=scheme.ch_axis)
        super().__init__(scheme=scheme, observer=fixed)
        # Refuses a zero point that the grid cannot have.
        fixed.range(scheme)
        self.set_qparams(QParams(scale=fixed.scale, zero_point=fixed.zero_point, scheme=scheme))
        self.disable_observer()

    def enable_observer(self, enabled: bool = True) -> None:
        """Stay off: the numbers are fixed."""
        super().enable_observer(False)


class FusedMovingAvgObsFakeQuantize(FakeQuantize):
    """``FakeQuantize`` on a moving average of minimum and maximum, the name that torch's QAT defaults use.

    torch's fused kernel multiplies by the reciprocal of the scale; the two steps here divide, as the engines do.
    """

    def __init__(self, *, scheme: QScheme, observer: Observer | str | Mapping[str, Any] | None = None) -> None:
        super().__init__(scheme=scheme, observer=observer)
        if not isinstance(self.observer, MovingAverageMinMaxObserver):
            raise RecipeError(
                "FusedMovingAvgObsFakeQuantize needs MovingAverageMinMaxObserver or "
                f"MovingAveragePerChannelMinMaxObserver, got {type(self.observer).__name__}",
                hint="use FakeQuantize for other observers",
            )
