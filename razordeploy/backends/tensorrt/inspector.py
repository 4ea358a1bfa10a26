"""Read the layers of an engine from the inspector's JSON, as TensorRT 10 and 11 write it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from razordeploy.backends.base import RuntimeOp
from razordeploy.errors import BackendError

_ORIGIN = re.compile(r"\[ONNX Layer: ([^\]\x1e]+)\]")
_WRAPPED = re.compile(r"^(?:PWN|POINTWISE|fusedPointwiseNode)\((.*)\)$")
_TYPES = {
    **{"int8": "i8", "uint8": "u8", "int4": "i4", "int32": "i32", "int64": "i64", "bool": "bool"},
    **{"fp8": "fp8", "half": "f16", "fp16": "f16", "bf16": "bf16", "float": "f32", "fp32": "f32"},
}
_EDGES = {"reformat", "noop", "constant", "shape_call", "signal", "wait", "shapehostscalar"}
"""Layers that compute nothing of the model's."""


def layers(text: str) -> list[RuntimeOp]:
    """The layers of an engine that compute, with the type that each reads.

    Raises:
        BackendError: no layer has details; the engine was built without them.
    """
    try:
        found = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"expected the engine inspector's JSON, got {text[:60]!r}") from error
    if any(not isinstance(layer, Mapping) for layer in found):
        raise BackendError(
            "the engine does not tell the types of its layers", hint="build it with --profilingVerbosity=detailed"
        )
    return [_layer(layer) for layer in found if not _is_edge(layer)]


def _layer(layer: Mapping[str, Any]) -> RuntimeOp:
    name = str(layer.get("Name", ""))
    kind = str(layer.get("ParameterType") or layer.get("LayerType") or "")
    return RuntimeOp(name=name, type=kind, precision=_precision(layer), origins=tuple(dict.fromkeys(_origins(layer))))


def _is_edge(layer: Mapping[str, Any]) -> bool:
    kind = str(layer.get("LayerType", "")).lower()
    parameter = str(layer.get("ParameterType", "")).lower()
    name = str(layer.get("Name", ""))
    return kind in _EDGES or parameter in _EDGES or name.startswith("Reformatting CopyNode")


def _precision(layer: Mapping[str, Any]) -> str:
    """The narrowest type among what the layer reads: a kernel that adds a float shortcut still multiplies integers."""
    read = [_type(tensor) for tensor in _tensors(layer, "Inputs")]
    if not read:
        read = [_type(tensor) for tensor in _tensors(layer, "Outputs")]
    weights = layer.get("Weights")
    if isinstance(weights, Mapping) and _named(str(weights.get("Type", ""))) == "i8":
        return "i8" if "i8" in read else next(iter(read), "")
    return "i8" if "i8" in read else next((t for t in read if t), "")


def _tensors(layer: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    return [tensor for tensor in layer.get(key) or () if isinstance(tensor, Mapping)]


def _type(tensor: Mapping[str, Any]) -> str:
    """``i8`` of "Thirty-two wide channel vectorized row major Int8 format" (10), or of a ``DataType`` (11)."""
    by_name = {str(key).lower(): str(value) for key, value in tensor.items()}
    for key in ("datatype", "format/datatype", "format"):
        found = _named(by_name.get(key, ""))
        if found:
            return found
    return ""


def _named(text: str) -> str:
    words = re.findall(r"[a-z0-9]+", text.lower())
    return next((short for word, short in _TYPES.items() if word in words), "")


def _origins(layer: Mapping[str, Any]) -> Iterator[str]:
    """Names of the ONNX nodes that became part of the layer: from its metadata, else from its own name."""
    from_metadata = _ORIGIN.findall(str(layer.get("Metadata", "")))
    yield from from_metadata
    if not from_metadata:
        for part in str(layer.get("Name", "")).split(" + "):
            inner = _WRAPPED.match(part.strip())
            yield from _plain(inner.group(1) if inner else part)


def _plain(text: str) -> Iterator[str]:
    for name in text.split(" + "):
        cleaned = name.strip().removesuffix("_myl0")
        if cleaned and not cleaned.startswith("{"):
            yield cleaned
