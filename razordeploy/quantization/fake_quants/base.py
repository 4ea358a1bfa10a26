"""What every fake quantization module is: an observer, a scale and zero point, and two switches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from razordeploy.config.scheme import QScheme
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.growing_state import GrowingState
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import compute_qparams, fake_quantize


class FakeQuantizeBase(GrowingState):
    """Base of the fake quantization modules; it cannot be built itself.

    ``observer`` is an ``Observer``, or its name or mapping as in a recipe; None means ``default_observer``. While the
    observer is on, every input updates the statistics, and the scale follows when it is next needed: a costly range
    search is not repeated for batches that are only observed.
    """

    default_observer = "MovingAverageMinMaxObserver"

    scale: Tensor
    zero_point: Tensor
    initialized_flag: Tensor
    observer_enabled: Tensor
    fake_quant_enabled: Tensor

    def __init__(self, *, scheme: QScheme, observer: Observer | str | Mapping[str, Any] | None = None) -> None:
        if type(self) is FakeQuantizeBase:
            raise RecipeError(
                "FakeQuantizeBase is a base class and cannot be built",
                hint="name a concrete one such as FakeQuantize or LearnableFakeQuantize",
            )
        super().__init__()
        if not isinstance(observer, Observer):
            observer = build_observer(observer or self.default_observer, ch_axis=scheme.ch_axis)
        self.scheme = scheme
        self.observer = observer
        shape = () if scheme.ch_axis is None else (0,)
        self._register_qparams(torch.ones(shape), torch.zeros(shape, dtype=torch.int64))
        self.register_buffer("initialized_flag", torch.zeros((), dtype=torch.bool))
        self.register_buffer("observer_enabled", torch.ones(1, dtype=torch.uint8))
        self.register_buffer("fake_quant_enabled", torch.ones(1, dtype=torch.uint8))
        self._stale = False
        self.observes_anew = False
        """True: every input replaces what was observed before it, as for a weight, whose range is that of now."""

    def _register_qparams(self, scale: Tensor, zero_point: Tensor) -> None:
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    @property
    def initialized(self) -> bool:
        """True once the scale comes from data, a checkpoint or given numbers; part of the state dict."""
        return bool(self.initialized_flag) or self._stale

    def enable_observer(self, enabled: bool = True) -> None:
        """Let inputs update the statistics, and the scale with them."""
        self.observer_enabled.fill_(int(enabled))

    def disable_observer(self) -> None:
        """Freeze the scale."""
        self.enable_observer(False)

    def enable_fake_quant(self, enabled: bool = True) -> None:
        """Round inputs to the grid."""
        self.fake_quant_enabled.fill_(int(enabled))

    def disable_fake_quant(self) -> None:
        """Pass inputs on as they are."""
        self.enable_fake_quant(False)

    @property
    def qparams(self) -> QParams:
        """Scale ``float32`` and zero point ``int64``, 0-d or ``(C,)``. Raises ``DataError`` when there are none yet."""
        self._refresh()
        if not self.initialized:
            raise DataError(
                f"{type(self).__name__} has no scale yet",
                hint="run calibration data through it with the observer enabled, or load a checkpoint",
            )
        return QParams(scale=self.scale.detach(), zero_point=self._integer_zero_point(), scheme=self.scheme)

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Give scale and zero point, under torch's name for it."""
        q = self.qparams
        return q.scale, q.zero_point

    def set_qparams(self, q: QParams) -> None:
        """Take over a scale and a zero point."""
        # Through .data and on the same device: an optimizer may hold the tensors as parameters.
        self.scale.data = q.scale.detach().clone().to(self.scale)
        self.zero_point.data = q.zero_point.detach().clone().to(self.zero_point)
        self.initialized_flag.fill_(True)
        self._stale = False

    def forget(self) -> None:
        """Have no scale, and nothing observed; a fixed scale stays."""
        if self.observer.needs_data:
            self.observer.reset()
            self.initialized_flag.fill_(False)
            self._stale = False

    def forward(self, x: Tensor) -> Tensor:
        """Observe ``x`` and round it to the grid, as the switches say; shape and dtype stay."""
        if self.observer_enabled:
            self._observe(x)
        return self.round(x)

    def round(self, x: Tensor) -> Tensor:
        """Round ``x`` to the grid where the switch says so, without observing it."""
        return self._fake_quantize(x) if self.fake_quant_enabled else x

    def _observe(self, x: Tensor) -> None:
        if self.observes_anew:
            self.observer.reset()
        self.observer.observe(x)
        self._stale = not self.observer.needs_data or self.observer.count > 0

    def _fake_quantize(self, x: Tensor) -> Tensor:
        return fake_quantize(x, self.qparams)

    def _integer_zero_point(self) -> Tensor:
        return self.zero_point

    def _refresh(self) -> None:
        if self._stale:
            self.set_qparams(compute_qparams(*self.observer.range(self.scheme), self.scheme))

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._refresh()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._stale = False

    def extra_repr(self) -> str:
        """Show the grid."""
        return f"scheme={self.scheme}"
