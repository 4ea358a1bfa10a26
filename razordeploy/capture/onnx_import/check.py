"""Hold an imported model against ONNX Runtime before anything is made of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from razordeploy.capture.onnx_import.evaluate import as_tensor, run
from razordeploy.capture.onnx_import.graph import OnnxNode
from razordeploy.capture.onnx_import.module import OnnxModule
from razordeploy.capture.onnx_import.op import Known, Value
from razordeploy.capture.onnx_import.ops.table import RULES
from razordeploy.capture.onnx_import.reference import Reference
from razordeploy.errors import ModelError

BOUND = 1e-4
"""Largest difference of an output, relative to its largest value: ten times what another order of summation makes."""
AMPLIFIED = 1e-2
"""The same where every single operation agrees: the model itself makes much of rounding errors."""
_FEW = 1e-3
"""Share of integers that may differ: an ``ArgMax`` of two almost equal values."""


def check_import(module: OnnxModule, inputs: Sequence[torch.Tensor], reference: Reference | None = None) -> None:
    """Compare the module with ONNX Runtime, unoptimised, on ``inputs``.

    Raises:
        ModelError: they disagree; names the first operation that gives another result, and how far it is off.
    """
    reference = reference or Reference(module.path)
    arrays = [x.numpy() for x in inputs]
    with torch.no_grad():
        found = module(*inputs)
    expected = reference(arrays)
    outputs = found if isinstance(found, tuple) else (found,)
    worst = max((error(y.numpy(), e) for y, e in zip(outputs, expected, strict=True)), default=0.0)
    if worst <= BOUND:
        return
    culprit = _first_difference(module, arrays, reference)
    if culprit is None and worst <= AMPLIFIED:
        return
    where = "no single operation does"
    if culprit is not None:
        node, off = culprit
        where = f"first at node '{node.op.name}' ({node.op.type}), which is off by {off:.1e}"
    raise ModelError(
        f"{module.path}: the imported model differs from ONNX Runtime by {worst:.1e} of the output's range, {where}",
        hint="razordeploy convert makes an engine without the import; please report the operator",
    )


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference relative to the largest expected value; infinite where shape, kind or finiteness differ."""
    if found.shape != expected.shape or (found.dtype.kind in "fc") != (expected.dtype.kind in "fc"):
        return float("inf")
    if not expected.size:
        return 0.0
    if expected.dtype.kind not in "fc":
        return 0.0 if float(np.mean(found != expected)) <= _FEW else float("inf")
    if not np.array_equal(np.isfinite(found), np.isfinite(expected)):
        return float("inf")
    finite = np.isfinite(expected)
    if not finite.any():
        return 0.0
    difference = np.abs(found[finite].astype(np.float64) - expected[finite]).max()
    return float(difference / max(float(np.abs(expected[finite]).max()), 1e-6))


def _first_difference(
    module: OnnxModule, arrays: list[np.ndarray], reference: Reference
) -> tuple[OnnxNode, float] | None:
    """Run every operation on ONNX Runtime's own values, so that errors of those before it do not count."""
    names = [name for node in module.nodes for name in (*node.inputs, *node.outputs) if name]
    known = {**dict(zip(module.input_names, arrays, strict=True)), **reference.values(arrays, names)}
    for node in module.nodes:
        if not all(name in known or name in module.constants or not name for name in (*node.inputs, *node.outputs)):
            continue
        inputs = tuple(_given(module, node, i, known) for i in range(len(node.inputs)))
        with torch.no_grad():
            found = run(node.op, inputs)
        for name, value in zip(node.outputs, found, strict=False):
            off = error(as_tensor(value).numpy(), known[name])
            if off > BOUND:
                return node, off
    return None


def _given(module: OnnxModule, node: OnnxNode, i: int, known: dict[str, np.ndarray]) -> Value | None:
    name = node.inputs[i]
    if not name:
        return None
    if name in module.constants:
        return Known(module.constants[name], torch.from_numpy(np.array(module.constants[name])))
    is_known = i in RULES[node.op.type].known
    return Known(known[name]) if is_known else torch.from_numpy(np.array(known[name]))
