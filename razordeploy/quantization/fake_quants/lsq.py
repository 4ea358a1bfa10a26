"""Learned step size quantization: the scale is a parameter of the network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import along_axis, fake_quantize, with_floor

MIN_SCALE = 2.0**-40
"""The scale in use never falls below this, whatever the optimizer makes of the parameter."""


class LearnableFakeQuantize(FakeQuantizeBase):
    """LSQ (Esser et al. 2020), and LSQ+ (Bhalgat et al. 2020) with ``learn_zero_point``.

    Three phases: ``enable_static_estimate`` takes the scale from the observer, ``enable_param_learning`` trains it,
    ``enable_val`` freezes everything. Learning that starts without a scale takes it from its first batch;
    ``initialized`` is in the state dict, so that a resumed training keeps its scale. The gradients of scale and zero
    point are multiplied by 1 / sqrt(n * Qmax), with n the number of values, or of values per channel (section 2.2);
    ``per_sample`` counts those of one sample, as the paper's features: how a batch is spread over processes then
    changes nothing.
    """

    default_observer = "LSQObserver"

    learning_enabled: Tensor

    def __init__(
        self,
        *,
        scheme: QScheme,
        observer: Observer | str | Mapping[str, Any] | None = None,
        learn_zero_point: bool = False,
    ) -> None:
        super().__init__(scheme=scheme, observer=observer)
        if learn_zero_point and scheme.symmetric:
            raise RecipeError(
                "learn_zero_point needs an affine grid: a symmetric one has its zero point fixed",
                hint="set is_symmetry=False or learn_zero_point=False",
            )
        if not self.observer.needs_data:
            raise RecipeError(f"LearnableFakeQuantize cannot start from {type(self.observer).__name__}")
        self.learn_zero_point = learn_zero_point
        self.per_sample = False
        self.register_buffer("learning_enabled", torch.zeros(1, dtype=torch.uint8))
        self.enable_param_learning()

    def _register_qparams(self, scale: Tensor, zero_point: Tensor) -> None:
        # Parameters from the start, so that an optimizer built before the first batch holds them.
        self.scale = nn.Parameter(scale)
        self.zero_point = nn.Parameter(zero_point.float())

    def enable_static_estimate(self) -> None:
        """Take the scale from the observer, over every batch from now on."""
        self._switch(observing=True, learning=False)

    def enable_param_learning(self) -> None:
        """Train the scale (and the zero point, if asked for)."""
        self._switch(observing=False, learning=True)

    def enable_val(self) -> None:
        """Freeze the scale and the zero point."""
        self._switch(observing=False, learning=False)

    def _switch(self, *, observing: bool, learning: bool) -> None:
        self._refresh()
        self.enable_observer(observing)
        self.enable_fake_quant()
        self.learning_enabled.fill_(int(learning))
        self._set_trainable()

    def _set_trainable(self) -> None:
        learning = bool(self.learning_enabled)
        self.scale.requires_grad_(learning)
        self.zero_point.requires_grad_(learning and self.learn_zero_point)

    @property
    def qparams(self) -> QParams:
        """Scale and zero point as the grid uses them: positive, an integer inside the grid, from the scheme's floor."""
        q = super().qparams
        return with_floor(QParams(scale=q.scale.clamp(min=MIN_SCALE), zero_point=q.zero_point, scheme=q.scheme))

    def _integer_zero_point(self) -> Tensor:
        return self.zero_point.detach().round().clamp(self.scheme.qmin, self.scheme.qmax).to(torch.int64)

    def _fake_quantize(self, x: Tensor) -> Tensor:
        if not self.learning_enabled:
            return fake_quantize(x, self.qparams)
        if not self.initialized:
            self._observe(x)
            if not self.initialized:
                return x
        self._refresh()
        step, offset = self._on_floor() if self.scheme.floor is not None else (self.scale, self.zero_point)
        scale, zero_point = (along_axis(v, x, self.scheme.ch_axis) for v in (step, offset))
        return self._learned(x, scale, zero_point)

    def _on_floor(self) -> tuple[Tensor, Tensor]:
        """The grid in use, whose scale is the next one that divides the floor; the gradient goes to the parameter."""
        q = self.qparams
        return self.scale + (q.scale - self.scale).detach(), q.zero_point.float()

    def _learned(self, x: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
        """Round, with the gradients that train ``scale`` and ``zero_point``, which broadcast against ``x``."""
        values = x.numel() // max(1, scale.numel())
        values = values // max(1, x.shape[0]) if self.per_sample and x.ndim else values
        factor = gradient_factor(values, self.scheme.qmax)
        result: Tensor = _LearnedStep.apply(x, scale, zero_point, self.scheme.qmin, self.scheme.qmax, factor)
        return result

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._set_trainable()


def gradient_factor(values: int, qmax: int) -> float:
    """1 / sqrt(n * Qmax) (Esser et al. 2020, section 2.2): ``values`` share one scale."""
    return 1 / math.sqrt(max(1, values) * max(1, qmax))


class _LearnedStep(torch.autograd.Function):
    """``x_hat = (clamp(round(x / s) + z, qmin, qmax) - z) * s`` with the gradients of Esser et al., equations 3 and 5.

    With v = x / s, Q_N = z - qmin and Q_P = qmax - z: d x_hat / d s is round(v) - v for -Q_N < v < Q_P, else the bound;
    d x_hat / d z is 0 there, else -s (LSQ+, equation 6); d x_hat / d x is 1 there, else 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int, factor: float) -> Tensor:
        step = scale.clamp(min=MIN_SCALE)
        offset = zero_point.round().clamp(qmin, qmax)
        ctx.save_for_backward(x, step, offset)
        ctx.grid = qmin, qmax, factor
        rounded = (x.float() / step).round_()
        return rounded.clamp_(qmin - offset, qmax - offset).mul_(step).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, step, offset = ctx.saved_tensors
        qmin, qmax, factor = ctx.grid
        grad = grads[0].float()
        v = x.float() / step
        lower, upper = qmin - offset, qmax - offset
        inside = (v > lower) & (v < upper)
        # The parameter is trained through the lower bound on the step, so that it can come back from there.
        slope = v.round().clamp_(lower, upper).sub_(v.masked_fill_(~inside, 0.0))
        grad_scale = (grad * slope).sum_to_size(step.shape) * factor if ctx.needs_input_grad[1] else None
        grad_zero = (grad * ~inside * -step).sum_to_size(step.shape) * factor if ctx.needs_input_grad[2] else None
        return (grad * inside).to(x.dtype), grad_scale, grad_zero, None, None, None
