"""What became of every operation of the captured graph: the facts behind the report's picture of it."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from razordeploy.backends.base import Backend, RuntimeOp
from razordeploy.backends.harness import float_reason, kernel_text, kernels_by_origin
from razordeploy.capture.graph import CapturedModel, module_path
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.quantization.plan import PlannedOp, QuantPlan

INT8, SIMULATED, FUSED, MOVES, FLOAT = "int8", "simulated", "fused", "moves", "float"
"""An int8 kernel; rounded to int8 values by a backend without engine; inside the kernel of the operation before;
values only moved, nothing computed; computed in float."""

_aten = torch.ops.aten
_aten = torch.ops.aten
# Outside the vocabulary of kinds because no backend has a rule for them.
_MOVING = {_aten.flip.default, _aten.im2col.default, _aten.stack.default, _aten.unfold.default}
_VIEWS = {"reshape", "transpose", "slice", "split", "expand"}
"""Kinds that compute nothing on any backend, whether its rules name them or not."""


def node_records(
    captured: CapturedModel, plan: QuantPlan, backend: Backend, runtime: Sequence[RuntimeOp]
) -> list[dict[str, Any]]:
    """One record for every operation on floating-point tensors, in execution order.

    Args:
        captured: the float graph.
        plan: what ``backend`` was asked to run in int8.
        backend: tells which kinds are fused and which only pass values on.
        runtime: the engine's own graph.

    Returns:
        ``node``, ``op`` (its kind), ``module`` (dotted path) and ``state`` (one of the five above); for a float one
        ``reason``, and ``planned`` where it was to run in int8; ``kernel``, what the engine runs for it and in which
        type, where its graph names the operation.
    """
    planned = {op.node: op for op in plan.ops}
    ran = kernels_by_origin(runtime)
    states: dict[str, str] = {}
    records = []
    for node in captured.graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem or not _gives_float(node):
            continue
        kernels = ran.get(node.name, [])
        found = _state(node, planned.get(node.name), backend, kernels, states)
        states[node.name] = found["state"]
        record = {"node": node.name, "op": kind_of(node) or _plain_name(node), "module": module_path(node), **found}
        records.append(record | _kernel(kernels))
    return records


def _state(
    node: fx.Node,
    planned: PlannedOp | None,
    backend: Backend,
    kernels: Sequence[RuntimeOp],
    states: Mapping[str, str],
) -> dict[str, Any]:
    kind = kind_of(node)
    if (kind in _VIEWS or node.target in _MOVING) and not (planned and planned.int8):
        return {"state": MOVES}
    if planned is not None:
        if backend.simulated_only and planned.int8:
            return {"state": SIMULATED}
        reason = float_reason(planned, kernels)
        return {"state": INT8} if reason is None else _float(reason, planned=planned.int8)
    if kind in backend.spec.same_grid or kind in backend.spec.unify:
        return {"state": MOVES}
    if kind in (*backend.spec.fused_activations, *backend.spec.fused_behind_layers):
        source = node.args[0]
        before = source.name if isinstance(source, fx.Node) else ""
        if kernels and not any(k.int8 for k in kernels):
            return _float(f"planned inside {before}, but the engine runs {kernel_text(kernels)}", planned=True)
        if states.get(before) == FLOAT:
            return _float("runs inside the operation before it, which is float")
        return {"state": FUSED}
    return _float("no int8 rule in the backend's YAML")


def _float(reason: str, *, planned: bool = False) -> dict[str, Any]:
    return {"state": FLOAT, "reason": reason} | ({"planned": True} if planned else {})


def _kernel(kernels: Sequence[RuntimeOp]) -> dict[str, str]:
    return {"kernel": kernel_text(kernels)} if kernels else {}


def _gives_float(node: fx.Node) -> bool:
    leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return any(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves)


def _plain_name(node: fx.Node) -> str:
    """``exp`` of ``aten.exp.default``."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))
