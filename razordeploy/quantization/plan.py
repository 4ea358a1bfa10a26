"""What is to be quantized, where and on which grid: the hand-over from a backend's quantizer to everything after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from razordeploy.config.scheme import QScheme


@dataclass(frozen=True, kw_only=True)
class ObserverSpec:
    """A range estimator by name, with its options."""

    type: str
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """The dict form that ``build_observer`` takes."""
        return {"type": self.type, **dict(self.options)}


@dataclass(frozen=True, kw_only=True)
class QuantPoint:
    """One quantize-dequantize pair on the value of one graph node."""

    node: str
    """Graph node whose value is quantized (a parameter's node for weights)."""
    users: tuple[str, ...]
    """Consumers that read the quantized value; the others read the float one."""
    kind: Literal["activation", "weight"]
    scheme: QScheme
    group: str
    """Points with one group share one scale and zero point."""
    observer: ObserverSpec
    """Range estimator."""
    observed: bool = True
    """False: an operation that only passes a grid on; the range is that of the group's other points."""


@dataclass(frozen=True, kw_only=True)
class PlannedOp:
    """One compute operation of the graph, and whether the backend is asked to run it in int8."""

    node: str
    kind: str
    """Operation kind of ``quantization/op_kinds.py``: conv2d, linear, add ..."""
    module: str
    """Path of the module that the operation came from; empty when unknown."""
    int8: bool
    reason: str | None = None
    """Why the operation stays float; None when it is quantized."""


@dataclass(frozen=True, kw_only=True)
class QuantPlan:
    """Everything one backend quantizes in one captured graph."""

    backend: str
    points: tuple[QuantPoint, ...]
    ops: tuple[PlannedOp, ...]
    bias: Literal["float", "int32"] = "float"
    """``int32``: the engine stores biases as integers of scale ``input scale * weight scale``."""


@dataclass(frozen=True, kw_only=True)
class QParams:
    """Scale and zero point of one group, ``float32`` and ``int64``, 0-d or ``(channels,)``."""

    scale: torch.Tensor
    zero_point: torch.Tensor
    scheme: QScheme
