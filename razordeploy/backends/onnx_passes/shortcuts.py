"""Leave out what ``torch.onnx.export`` does for graphs in general and a captured graph has no need of.

The exporter builds a table of every operator that it knows, decomposes the graph and looks for mixed element types, the
last two by interpreting all of it. A captured graph is functional, at ATen level and nearly always float throughout:
what is left out takes ten times as long as the translation itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import fx

from razordeploy.capture.graph import value_of

_INSERTED = ("aten::scalar_tensor", "prims::convert_element_type")
"""Operators that the exporter itself puts between two element types."""


class NotLowerable(Exception):  # noqa: N818  not an error: the long way is to be taken
    """An operator of the graph has no ONNX form of its own."""


@contextlib.contextmanager
def shortcuts(graph: fx.Graph) -> Iterator[None]:
    """Let ``torch.onnx.export`` look up only the operators of ``graph``, and interpret nothing that needs no change.

    Raises:
        NotLowerable: from inside, wrapped by the exporter, when the graph has to be decomposed after all.
        ImportError, AttributeError: another version of the exporter, without the parts that are left out.
    """
    from torch.onnx._internal.exporter import _fx_passes, _registration

    operators = {n.target for n in graph.nodes if n.op == "call_function"}
    promote = _fx_passes.insert_type_promotion_nodes

    def registry_of_the_graph(cls: type[Any], opset_version: int) -> Any:
        return _registry(cls, operators, opset_version)

    def keep(program: torch.export.ExportedProgram, registry: Any) -> torch.export.ExportedProgram:
        missing = [t for t in operators if isinstance(t, torch._ops.OpOverload) and not registry.is_registered(t)]
        if missing:
            raise NotLowerable(f"{missing[0]} has no ONNX form of its own")
        return program

    def promote_mixed(module: fx.GraphModule) -> None:
        if _mixes_types(module.graph):
            promote(module)

    with (
        mock.patch.object(_registration.ONNXRegistry, "from_torchlib", classmethod(registry_of_the_graph)),
        mock.patch.object(_fx_passes, "decompose_with_registry", keep),
        mock.patch.object(_fx_passes, "insert_type_promotion_nodes", promote_mixed),
    ):
        yield


def _registry(cls: type[Any], operators: set[Any], opset_version: int) -> Any:
    """What ``ONNXRegistry.from_torchlib`` returns, for these operators only."""
    from onnxscript.function_libs.torch_lib import ops, registration
    from torch.onnx._internal.exporter import _registration
    from torch.onnx._internal.exporter._torchlib import _torchlib_registry

    del ops  # importing it fills the table
    registry = cls()
    registry._opset_version = opset_version
    for meta in _torchlib_registry.get_torchlib_ops():
        registry._register(meta.fx_target, meta)
    # With all their overloads: converting an operand may call for another one.
    wanted = {_packet_name(o) for o in operators}.union(_INSERTED)
    for name, functions in registration.default_registry.items():
        target = _registration._get_overload(name) if name.partition(".")[0] in wanted else None
        if target is None:
            continue
        for is_complex, found in ((False, functions.overloads), (True, functions.complex)):
            for function in found:
                meta = _registration.OnnxDecompMeta(function, target, None, is_complex=is_complex)
                registry._register(target, meta)
    registry._cleanup_registry_based_on_opset_version()
    return registry


def _packet_name(operator: Any) -> str:
    if isinstance(operator, torch._ops.OpOverload):
        return operator.name().partition(".")[0]
    return f"{getattr(operator, '__module__', '')}::{getattr(operator, '__name__', '')}"


def _mixes_types(graph: fx.Graph) -> bool:
    """Tell whether some operator that converts its operands to one element type reads anything but float32 tensors."""
    from torch.onnx._internal.fx.passes import type_promotion

    suspects = {
        n.target for n in graph.nodes if n.op == "call_function" and not all(map(_is_float32, n.all_input_nodes))
    }
    operators = {t.overloadpacket for t in suspects if isinstance(t, torch._ops.OpOverload)}
    if not operators:
        return False
    rules = type_promotion.TypePromotionTable()
    return any(rules.get_rule(operator) is not None for operator in operators)


def _is_float32(node: fx.Node) -> bool:
    value = value_of(node)
    return isinstance(value, torch.Tensor) and value.dtype == torch.float32
