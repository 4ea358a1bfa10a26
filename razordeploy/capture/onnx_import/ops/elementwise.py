"""Arithmetic, comparison, logic and casts, element by element; also on shapes."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from razordeploy.capture.onnx_import.op import Op, Rule, plain

DTYPES: dict[int, tuple[torch.dtype, Any]] = {
    1: (torch.float32, np.float32),
    2: (torch.uint8, np.uint8),
    3: (torch.int8, np.int8),
    5: (torch.int16, np.int16),
    6: (torch.int32, np.int32),
    7: (torch.int64, np.int64),
    9: (torch.bool, np.bool_),
    11: (torch.float64, np.float64),
}
"""Number in ``TensorProto.DataType`` -> torch's and numpy's type."""


def _unary(function: Callable[[Tensor], Tensor], fold: Callable[[Any], Any] | None = None) -> Rule:
    on_arrays = None if fold is None else lambda op, x: plain(np.asarray(fold(x)))
    return Rule(run=lambda op, x: function(x), fold=on_arrays)


def _binary(function: Callable[[Any, Any], Any], fold: Callable[[Any, Any], Any]) -> Rule:
    return Rule(
        run=lambda op, a, b: function(a, b),
        fold=lambda op, a, b: plain(np.asarray(fold(a, b))),
        scalars=True,
    )


def _variadic(function: Callable[[Any, Any], Any], fold: Callable[[Any, Any], Any]) -> Rule:
    def run(op: Op, *values: Tensor) -> Tensor:
        return functools.reduce(function, values)

    return Rule(run=run, fold=lambda op, *arrays: plain(np.asarray(functools.reduce(fold, arrays))))


def _compare(function: Callable[[Any, Any], Any]) -> Rule:
    def fold(op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        # A symbolic comparison becomes a bool here: torch.export notes what it holds for.
        a, b = np.broadcast_arrays(a, b)
        found = [bool(function(x, y)) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True)]
        return np.array(found, dtype=bool).reshape(a.shape)

    return Rule(run=lambda op, a, b: function(a, b), fold=fold)


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and not a.is_floating_point():
        return torch.div(a, b, rounding_mode="trunc")
    return a / b


def _divide_arrays(a: np.ndarray, b: np.ndarray) -> Any:
    if _is_real(a) or _is_real(b):
        return a / b
    if a.dtype == object or b.dtype == object:
        return a // b  # sizes: never negative
    return np.trunc(a / b).astype(a.dtype)


def _is_real(x: np.ndarray) -> bool:
    return x.dtype.kind == "f" or (x.dtype == object and any(isinstance(v, torch.SymFloat) for v in x.reshape(-1)))


def _power(op: Op, a: Any, b: Any) -> Tensor:
    result = torch.pow(a, b)
    return result.to(a.dtype) if isinstance(a, Tensor) and a.dtype != result.dtype else result


def _mod(op: Op, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if op.get("fmod", 0) else torch.remainder(a, b)


def _mean(op: Op, *values: Tensor) -> Tensor:
    return functools.reduce(operator.add, values) / len(values)


def _dtype(op: Op) -> tuple[torch.dtype, Any]:
    wanted = int(op.get("to"))
    if wanted not in DTYPES:
        raise op.refuse(f"it casts to ONNX's data type {wanted}", hint="export the model in float32")
    return DTYPES[wanted]


def _cast(op: Op, x: Tensor) -> Tensor:
    return x.to(_dtype(op)[0])


def _cast_array(op: Op, x: np.ndarray) -> np.ndarray:
    kind = _dtype(op)[1]
    if x.dtype != object:
        return x.astype(kind)
    convert = torch.sym_int if np.dtype(kind).kind in "iu" else torch.sym_float
    return np.array([convert(v) for v in x.reshape(-1)], dtype=object).reshape(x.shape)


def _where_arrays(op: Op, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return plain(np.where(condition.astype(bool), a, b))


def _logical(function: Callable[..., Tensor], fold: Callable[..., Any]) -> Rule:
    return Rule(run=lambda op, *values: function(*values), fold=lambda op, *arrays: np.asarray(fold(*arrays)))


def _sqrt_array(x: np.ndarray) -> Any:
    if x.dtype == object:
        return np.array([torch.sym_sqrt(v) for v in x.reshape(-1)], dtype=object).reshape(x.shape)
    return np.sqrt(x)


RULES = {
    "Abs": _unary(torch.abs, np.abs),
    "Add": _binary(operator.add, operator.add),
    "And": _logical(torch.logical_and, np.logical_and),
    "Cast": Rule(run=_cast, fold=_cast_array),
    "CastLike": Rule(run=lambda op, x, like: x.to(like.dtype)),
    "Ceil": _unary(torch.ceil, np.ceil),
    "Cos": _unary(torch.cos),
    "Div": _binary(_divide, _divide_arrays),
    "Equal": _compare(operator.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor, np.floor),
    "Greater": _compare(operator.gt),
    "GreaterOrEqual": _compare(operator.ge),
    "Identity": Rule(run=lambda op, x: x, fold=lambda op, x: x),
    "IsInf": _unary(torch.isinf),
    "IsNaN": _unary(torch.isnan),
    "Less": _compare(operator.lt),
    "LessOrEqual": _compare(operator.le),
    "Log": _unary(torch.log),
    "Max": _variadic(torch.maximum, np.maximum),
    "Mean": Rule(run=_mean),
    "Min": _variadic(torch.minimum, np.minimum),
    "Mod": Rule(run=_mod, fold=lambda op, a, b: plain(np.asarray(a % b))),
    "Mul": _binary(operator.mul, operator.mul),
    "Neg": _unary(torch.neg, operator.neg),
    "Not": _logical(torch.logical_not, np.logical_not),
    "Or": _logical(torch.logical_or, np.logical_or),
    "Pow": Rule(run=_power, scalars=True),
    "Reciprocal": _unary(torch.reciprocal),
    "Round": _unary(torch.round, np.round),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Sqrt": _unary(torch.sqrt, _sqrt_array),
    "Sub": _binary(operator.sub, operator.sub),
    "Sum": _variadic(operator.add, operator.add),
    "Where": Rule(run=lambda op, condition, a, b: torch.where(condition, a, b), fold=_where_arrays),
    "Xor": _logical(torch.logical_xor, np.logical_xor),
}
