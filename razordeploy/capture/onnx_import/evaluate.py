"""Run one node, on arrays or on tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from razordeploy.capture.onnx_import.op import Known, Op, Rule, Value, plain
from razordeploy.capture.onnx_import.ops.table import RULES
from razordeploy.errors import ModelError


def run(op: Op, inputs: tuple[Value | None, ...]) -> tuple[Value, ...]:
    """Run ``op`` on its inputs, None for one that is left out: on arrays where all are known and its rule can.

    Raises:
        ModelError: the operator cannot run on them; names the node.
    """
    rule = RULES[op.type]
    try:
        folded = _folded(op, rule, inputs)
        found = rule.run(op, *_arguments(op, rule, inputs)) if folded is None else folded
    except ModelError:
        raise
    except Exception as error:  # whatever torch or numpy make of sizes that do not fit
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise op.refuse(f"it cannot run: {lines[0]}") from error
    return found if isinstance(found, tuple) else (found,)


def as_tensor(value: Value) -> torch.Tensor:
    """The value as a tensor."""
    return value.as_tensor() if isinstance(value, Known) else value


def _folded(op: Op, rule: Rule, inputs: tuple[Value | None, ...]) -> Known | None:
    if rule.fold is None or any(isinstance(x, torch.Tensor) for x in inputs):
        return None
    arrays = [x.array if isinstance(x, Known) else None for x in inputs]
    # Sizes and positions have to be numbers; what is reshaped or sliced by them need not.
    if any(i < len(arrays) and arrays[i] is not None and arrays[i].dtype == object for i in rule.known):  # type: ignore[union-attr]
        return None
    found = rule.fold(op, *arrays)
    return None if found is None else Known(plain(np.asarray(found)))


def _arguments(op: Op, rule: Rule, inputs: tuple[Value | None, ...]) -> list[Any]:
    ranks = [x.dim() for x in inputs if isinstance(x, torch.Tensor)]
    arguments: list[Any] = []
    for i, value in enumerate(inputs):
        if i in rule.known and value is not None:
            if not isinstance(value, Known):
                raise op.refuse(
                    f"its input {i} depends on the data; only constants and shapes can be imported",
                    hint="export the model with fixed sizes, or make that input a constant",
                )
            arguments.append(value.array)
        elif value is None or isinstance(value, torch.Tensor) or i in rule.raw:
            arguments.append(value)
        elif rule.scalars and ranks and _is_number(value.array, max(ranks)):
            arguments.append(value.array.item())
        else:
            arguments.append(value.as_tensor())
    return arguments


def _is_number(array: np.ndarray, rank: int) -> bool:
    return array.dtype.kind in "fi" and array.size == 1 and array.ndim <= rank
