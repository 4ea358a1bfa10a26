"""Read an ONNX file, and say in one line what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from razordeploy.artifact import TensorSpec
from razordeploy.errors import ModelError
from razordeploy.lazy import require

if TYPE_CHECKING:
    import onnx_ir as ir

SUFFIX = ".onnx"
OPSETS = (9, 25)
"""First and last opset whose operators are known."""
QUANTIZED = {
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
    *("ConvInteger", "MatMulInteger", "QLinearAdd", "QLinearMul", "QGemm"),
}
"""Operators of which one is enough to call a file quantized."""
DEFAULT_DOMAINS = ("", "ai.onnx")


def is_onnx(path: object) -> bool:
    """Tell by its name whether ``path`` is meant to be an ONNX file."""
    return isinstance(path, str | os.PathLike) and Path(path).suffix.lower() == SUFFIX


def read_onnx(path: str | os.PathLike[str]) -> ir.Model:
    """Read the file's graph; weights beside it are read when they are used.

    Raises:
        ModelError: no such file, not an ONNX file, truncated, or its external data is missing or elsewhere.
        MissingDependency: the ONNX packages are not installed.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        found = "a folder" if file.is_dir() else "nothing"
        raise ModelError(f"expected an ONNX file at {file}, found {found}")
    require("onnx", extra="onnxruntime")
    load = require("onnx_ir", extra="onnxruntime").load
    try:
        model: ir.Model = load(file)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # protobuf's own classes, and whatever its reader makes of arbitrary bytes
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise ModelError(f"{file} is no ONNX file, or a damaged one: {reason}", hint="export it again") from error
    if not len(model.graph) and not model.graph.outputs:
        raise ModelError(f"{file} is no ONNX file: it holds no graph", hint="export it again")
    _check_values(model, file)
    _check_external(model, file)
    return model


def specs(model: ir.Model) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs without those that only name an initializer, and outputs; None is a size that the file leaves open.

    Raises:
        ModelError: an input is no tensor, or has no type or rank.
    """
    inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
    return [_spec(v, "input", True) for v in inputs], [_spec(v, "output", False) for v in model.graph.outputs]


def opset(model: ir.Model) -> int:
    """Opset of ONNX's own operators."""
    return int(next((v for d, v in model.opset_imports.items() if d in DEFAULT_DOMAINS), 0))


def quantized_node(model: ir.Model) -> ir.Node | None:
    """The first node that computes in integers, or converts to them; None: the file is a float model."""
    return next((n for n in all_nodes(model) if n.op_type in QUANTIZED), None)


def all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Nodes of the graph, of its subgraphs and of the functions it defines."""
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _spec(value: Any, kind: str, needed: bool) -> TensorSpec:
    if needed and (value.dtype is None or value.shape is None):
        lacks = "element type" if value.dtype is None else "rank"
        raise ModelError(f"the ONNX {kind} '{value.name}' has no {lacks}", hint="export it again with typed inputs")
    if value.dtype is None:
        return TensorSpec(name=str(value.name), shape=(), dtype="float32")
    shape = () if value.shape is None else tuple(d if isinstance(d, int) and d > 0 else None for d in value.shape)
    try:
        dtype = str(value.dtype.numpy())
    except TypeError:
        raise ModelError(f"the ONNX {kind} '{value.name}' is a tensor of {value.dtype.name}") from None
    return TensorSpec(name=str(value.name), shape=shape, dtype=dtype)


def _check_values(model: ir.Model, file: Path) -> None:
    """Every value that a node reads has to come from somewhere."""
    given = {v.name for v in model.graph.inputs} | set(model.graph.initializers)
    for node in model.graph:
        for value in node.inputs:
            if value is not None and value.producer() is None and value.name not in given:
                raise ModelError(
                    f"{file} is damaged: node '{node.name}' ({node.op_type}) reads '{value.name}', which nothing makes",
                    hint="export it again",
                )


def _check_external(model: ir.Model, file: Path) -> None:
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        place = Path(str(tensor.location))
        if place.is_absolute() or ".." in place.parts:
            raise ModelError(f"{file} keeps '{value.name}' in '{place}', outside of its own folder")
        data = file.parent / place
        if not data.is_file():
            raise ModelError(
                f"{file} keeps its weights in '{place}', which is not beside it", hint=f"copy it to {file.parent}"
            )
        wanted = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
        if data.stat().st_size < wanted:
            raise ModelError(
                f"{data} is truncated: '{value.name}' needs {wanted:,} bytes, it has {data.stat().st_size:,}",
                hint=f"copy it again beside {file.name}",
            )
