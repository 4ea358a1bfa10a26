"""The file's graph without protobuf: named nodes, constants as arrays, inputs and outputs."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from razordeploy.artifact import TensorSpec
from razordeploy.capture.onnx_import.file import DEFAULT_DOMAINS, OPSETS, opset, quantized_node, read_onnx, specs
from razordeploy.capture.onnx_import.op import Op
from razordeploy.capture.onnx_import.ops.table import RULES
from razordeploy.errors import ModelError, nearest

if TYPE_CHECKING:
    import onnx_ir as ir

_HALF = {"FLOAT16", "BFLOAT16", "DOUBLE"}


@dataclass(frozen=True, kw_only=True)
class OnnxNode:
    """One operation and the names of the values that it reads and makes; an input that is left out is empty."""

    op: Op
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """A float model of known operators."""

    path: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[OnnxNode, ...]
    """In an order in which they can run."""
    constants: dict[str, np.ndarray]


def load_graph(path: str | os.PathLike[str]) -> OnnxGraph:
    """Read the file.

    Raises:
        ModelError: not an ONNX file, or it holds what is not imported: half precision, integer operators, another
            vendor's operators, control flow; names the first node and what to do.
    """
    import_path = Path(path).expanduser()
    model = read_onnx(import_path)
    _check_supported(model, import_path)
    model = _inlined(model)
    _check_operators(model, import_path)
    model.graph.sort()
    inputs, outputs = specs(model)
    constants = {
        str(name): _array(value.const_value, str(name), import_path)
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    version = opset(model)
    names = node_names(model.graph)
    nodes = []
    for node, name in zip(model.graph, names, strict=True):
        if node.op_type == "Constant":
            constants[str(node.outputs[0].name)] = _constant(node, name, import_path)
            continue
        nodes.append(
            OnnxNode(
                op=Op(
                    name=name,
                    type=node.op_type,
                    version=version,
                    attributes={key: _attribute(a) for key, a in node.attributes.items()},
                    outputs=sum(bool(v.name) for v in node.outputs),
                ),
                inputs=tuple("" if v is None else str(v.name) for v in node.inputs),
                outputs=tuple(str(v.name) for v in node.outputs),
            )
        )
    return OnnxGraph(
        path=import_path, inputs=tuple(inputs), outputs=tuple(outputs), nodes=tuple(nodes), constants=constants
    )


def pruned(graph: OnnxGraph) -> OnnxGraph:
    """The same graph without nodes and constants that no output depends on."""
    wanted = {spec.name for spec in graph.outputs}
    nodes: list[OnnxNode] = []
    for node in reversed(graph.nodes):
        if wanted & set(node.outputs):
            nodes.append(node)
            wanted |= set(node.inputs)
    constants = {name: array for name, array in graph.constants.items() if name in wanted}
    return replace(graph, nodes=tuple(reversed(nodes)), constants=constants)


def _check_supported(model: ir.Model, path: Path) -> None:
    first, last = OPSETS
    if not first <= opset(model) <= last:
        raise ModelError(
            f"{path} is of opset {opset(model)}, expected {first} to {last}",
            hint="export it again, or convert it with onnx.version_converter",
        )
    node = quantized_node(model)
    if node is not None:
        raise ModelError(
            f"{path} is quantized already: node '{node.name}' is a {node.op_type}",
            hint="razordeploy convert makes an engine of it as it is; to quantize anew, start from the float model",
        )
    for value in [*model.graph.inputs, *model.graph.initializers.values()]:
        kind = getattr(value.dtype, "name", "")
        # A number in double precision is harmless: exporters write the arguments of casts so.
        if kind in _HALF and not (kind == "DOUBLE" and value.const_value is not None and value.const_value.size == 1):
            raise ModelError(
                f"{path} is in {kind.lower()}: '{value.name}'; expected float32", hint="export the model in float32"
            )


def _inlined(model: ir.Model) -> ir.Model:
    """Functions that the file itself defines are written out."""
    if not model.functions:
        return model
    from onnx_ir.passes.common import InlinePass

    return InlinePass()(model).model


def _check_operators(model: ir.Model, path: Path) -> None:
    lacking: dict[str, str] = {}
    for node in model.graph:
        if node.domain not in DEFAULT_DOMAINS:
            raise ModelError(
                f"{path}: node '{node.name}' is a {node.op_type} of '{node.domain}'; expected ONNX's own operators",
                hint="export the model without the optimisations of a runtime",
            )
        if node.op_type not in RULES and node.op_type != "Constant":
            lacking.setdefault(node.op_type, node.name or str(node.outputs[0].name))
    if lacking:
        found = ", ".join(f"{kind} (node '{name}')" for kind, name in lacking.items())
        kind = next(iter(lacking))
        close = nearest(kind, RULES)
        raise ModelError(
            f"{path}: operators that cannot be imported: {found}",
            hint=(f"{close} " if close.startswith("did you mean") else "")
            + "cut them off (onnx.utils.extract_model), or run razordeploy convert, which leaves them to the engine",
        )


def node_names(nodes: Iterable[ir.Node]) -> list[str]:
    """A name for every node: its own, or that of its first output; numbered where it is another's."""
    nodes = list(nodes)
    taken = {str(node.name) for node in nodes if node.name}
    names = []
    for node in nodes:
        name = node.name or ""
        if not name:
            base = re.sub(r"_output_0$", "", str(node.outputs[0].name)) or node.op_type
            numbered = (f"{base}_{i}" for i in itertools.count(2))
            name = next(n for n in itertools.chain([base], numbered) if n not in taken)
            taken.add(name)
        names.append(name)
    return names


def _array(tensor: ir.TensorProtocol, name: str, path: Path) -> np.ndarray:
    if tensor.dtype.name not in {"STRING"}:
        return np.asarray(tensor.numpy())
    raise ModelError(f"{path}: the constant '{name}' holds text")


def _constant(node: ir.Node, name: str, path: Path) -> np.ndarray:
    for key, attribute in node.attributes.items():
        if key == "value":
            return _array(attribute.as_tensor(), name, path)
        if key in {"value_float", "value_floats"}:
            return np.asarray(attribute.value, np.float32)
        if key in {"value_int", "value_ints"}:
            return np.asarray(attribute.value, np.int64)
    raise ModelError(f"{path}: the constant '{name}' is neither a tensor nor a number")


def _attribute(attribute: Any) -> Any:
    if attribute.type.name == "TENSOR":
        return attribute.as_tensor().numpy()
    value = attribute.value
    if attribute.type.name == "STRING":
        return value.decode() if isinstance(value, bytes) else str(value)
    return list(value) if isinstance(value, tuple | list) else value
