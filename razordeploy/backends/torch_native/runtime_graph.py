"""Read what Inductor compiled: its last graph, held against the code that it generated."""

from __future__ import annotations

import functools
import re
import zipfile
from collections import Counter
from pathlib import Path

import torch
from torch import fx

from razordeploy.backends.base import RuntimeOp
from razordeploy.backends.torch_native.qdq import ORIGIN, SCALE
from razordeploy.capture.graph import CapturedModel
from razordeploy.errors import BackendError

_PRECISIONS = {torch.uint8: "u8", torch.int8: "i8"}
_NOT_COMPUTE = {"quantized_decomposed", "prims"}
_QUANTIZED_CALL = re.compile(r"ERROR_CODE_CHECK\(aoti_torch_cpu__(q(?:conv|linear)\w*)\(")


class GraphReader:
    """A pass that changes nothing: keeps the operations of every graph that the compiler finishes."""

    def __init__(self, captured: CapturedModel) -> None:
        self.next_of = {n.name: [u.name for u in n.users] for n in captured.graph.nodes}
        self.ops: list[RuntimeOp] = []

    def __call__(self, graph: fx.Graph) -> None:
        """Read one graph."""
        found = (self._read(node) for node in graph.nodes if node.op == "call_function")
        self.ops = [op for op in found if op is not None]

    def _read(self, node: fx.Node) -> RuntimeOp | None:
        matched = _matched(node)
        kind = _kind(node, matched)
        if _namespace(kind) in _NOT_COMPUTE or kind.startswith(("aten.sym_", "onednn.qconv_prepack")):
            return None
        precision = "f32"
        if kind.startswith(("onednn.q", "q")):
            precision = _input_precision(node)
        return RuntimeOp(name=node.name, type=kind, precision=precision, origins=self._origins(node, matched))

    def _origins(self, node: fx.Node, matched: list[fx.Node]) -> tuple[str, ...]:
        # A conversion in front of the operation carries the name of the one that made the value.
        sources = [n for n in matched if _namespace(str(n.target)) != "quantized_decomposed"]
        names = dict.fromkeys(o for n in [*sources, node] if (o := n.meta.get("custom", {}).get(ORIGIN)))
        scale = next((n.name for n in node.all_input_nodes if n.name.startswith(SCALE)), None)
        if scale is None:
            return tuple(names)
        # A fused kernel carries the name of its last operation; the first is named by its weight scales.
        first = scale.removeprefix(SCALE)
        return self._path(first, next(reversed(names), first))

    def _path(self, first: str, last: str) -> tuple[str, ...]:
        path = [first]
        while path[-1] != last:
            following = self.next_of.get(path[-1], [])
            if len(following) != 1:
                return (first,)
            path += following
        return tuple(path)


def _matched(node: fx.Node) -> list[fx.Node]:
    """Nodes that a lowering pattern replaced by ``node``."""
    if not isinstance(node.target, functools.partial):
        return []
    return [n for arg in node.target.args for n in getattr(arg, "nodes", [])]


def _kind(node: fx.Node, matched: list[fx.Node]) -> str:
    names = [str(n.target) for n in matched]
    kernel = next((n for n in names if _namespace(n) in {"onednn", "mkldnn"}), None)
    if kernel is not None:
        return kernel
    if isinstance(node.target, functools.partial):
        return str(getattr(node.target.func, "__name__", node.target.func))
    return str(node.target)


def _namespace(target: str) -> str:
    return target.partition(".")[0]


def _input_precision(node: fx.Node) -> str:
    for source in node.all_input_nodes:
        value = source.meta.get("val")
        if isinstance(value, torch.Tensor) and value.dtype in _PRECISIONS and value.dim() > 1:
            return _PRECISIONS[value.dtype]
    return "f32"


def check_calls(package: Path, ops: list[RuntimeOp]) -> None:
    """Hold the int8 kernels of ``ops`` against the calls in the package's own C++ source.

    Raises:
        BackendError: the two differ.
    """
    with zipfile.ZipFile(package) as archive:
        sources = [n for n in archive.namelist() if n.endswith(".wrapper.cpp")]
        calls = Counter(c for n in sources for c in _QUANTIZED_CALL.findall(archive.read(n).decode()))
    wanted = sum(op.int8 and op.type.startswith("onednn.") for op in ops)
    if calls.total() != wanted:
        raise BackendError(f"the compiler's graph has {wanted} int8 kernels, its generated code calls {calls.total()}")
