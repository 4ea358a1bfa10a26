"""One ONNX export of the captured graph serves the float model and every backend's quantized one.

Every edge that some plan quantizes carries a mark through ``torch.onnx.export``. A backend then turns the marks of its
own plan into quantize-dequantize pairs and drops the others.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import fx

from razordeploy.backends.onnx_passes.program import exported_program
from razordeploy.backends.onnx_passes.shortcuts import shortcuts
from razordeploy.backends.onnx_passes.simplify import MARK, simplify
from razordeploy.capture.graph import CapturedModel, output_node, value_of
from razordeploy.errors import ModelError
from razordeploy.quantization.plan import QuantPlan

_library = torch.library.Library("razordeploy", "DEF")
_library.define("mark(Tensor x, str edge) -> Tensor")
_library.impl("mark", lambda x, edge: x.clone(), "CompositeExplicitAutograd")
_library.impl("mark", lambda x, edge: torch.empty_like(x), "Meta")
_MARK_OP = torch.ops.razordeploy.mark.default


@dataclass(frozen=True, kw_only=True)
class MarkedModel:
    """A float ONNX model with a mark (an operator of our own domain) on every edge that may be quantized."""

    model: ir.Model
    marks: dict[str, tuple[str, str]]
    """Output name of each mark -> (graph node, consumer)."""


def export_marked(
    captured: CapturedModel,
    plans: Sequence[QuantPlan],
    *,
    opset: int,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
) -> MarkedModel:
    """Export the captured graph with a mark on every edge that one of ``plans`` quantizes.

    Inputs are called as the model's arguments are, outputs ``output``, or ``output_0``, ``output_1`` ... where there
    are several, unless names are given.

    Raises:
        ModelError: an operator has no ONNX form; says which one and where it came from.
    """
    marked, edges = _mark(captured, plans)
    given = input_names or [str(n.target) for n in captured.placeholders()]
    program, names = _run(marked, captured, opset, given)
    exported = program.exported_program
    assert exported is not None
    edges = {n.name: edges[str(n.args[1])] for n in exported.graph.nodes if n.target is _MARK_OP}
    marks = {str(n.outputs[0].name): edges[str(n.outputs[0].name)] for n in program.model.graph
             if n.op_type == "Identity" and n.outputs[0].name in edges}  # fmt: skip
    missing = set(edges.values()) - set(marks.values())
    if missing:
        raise ModelError(
            f"the ONNX exporter lost {len(missing)} of {len(edges)} quantization points: {sorted(missing)[:3]}"
        )
    for node in program.model.graph:
        if str(node.outputs[0].name) in marks:
            node.domain, node.op_type = MARK
    simplify(program.model)
    _name_after_graph(program.model, names)
    marks = _name_outputs(program.model, marks, output_names)
    return MarkedModel(model=program.model, marks=marks)


_MAIN = {
    "Conv",
    "ConvTranspose",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Concat",
    "AveragePool",
    "GlobalAveragePool",
    "LeakyRelu",
    "Sigmoid",
}


def _name_after_graph(model: ir.Model, names: Mapping[str, str]) -> None:
    """Name each operation after the graph node it came from, so that an engine's own graph can be read by those names.

    Where a node became several operations (a linear layer's MatMul and Add) the first that computes gets the name.
    """
    taken: set[str] = set()
    for i, node in enumerate(model.graph):
        text = node.metadata_props.get("pkg.torch.onnx.fx_node", "").partition(" ")[0].lstrip("%")
        origin = names.get(text, "")
        if origin and origin not in taken and node.op_type in _MAIN:
            taken.add(origin)
            node.name = origin
        else:
            node.name = f"{origin or 'node'}.{node.op_type}.{i}"


def _name_outputs(
    model: ir.Model, marks: dict[str, tuple[str, str]], names: Sequence[str] | None
) -> dict[str, tuple[str, str]]:
    """Give each output its name, a value that is returned twice or is an input a copy; return the marks' new names."""
    outputs = model.graph.outputs
    names = names or ([f"output_{i}" for i in range(len(outputs))] if len(outputs) > 1 else ["output"])
    for value in (v for node in model.graph for v in node.outputs):
        if value.name in names:  # another value of that name inside the graph
            marks = _renamed(value, f"{value.name}_value", marks)
    for i, (value, name) in enumerate(zip(list(outputs), names, strict=True)):
        if value.is_graph_input() or any(other is value for other in outputs[:i]):
            copy = ir.node("Identity", [value], name=f"{name}.Identity")
            copy.outputs[0].name, copy.outputs[0].shape, copy.outputs[0].type = name, value.shape, value.type
            model.graph.append(copy)
            outputs[i] = copy.outputs[0]
        else:
            marks = _renamed(value, name, marks)
    return marks


def _renamed(value: ir.Value, name: str, marks: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    before, value.name = str(value.name), name
    return {name if key == before else key: edge for key, edge in marks.items()}


def _trace_back(captured: fx.Graph, retraced: fx.Graph, final: fx.Graph) -> dict[str, str]:
    """Name in the exporter's graph -> name in ours: exporting traces anew and numbers the nodes in its own way."""
    ours, theirs = (
        [n for n in graph.nodes if n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload)]
        for graph in (captured, retraced)
    )
    matcher = difflib.SequenceMatcher(
        None, [str(n.target) for n in ours], [str(n.target) for n in theirs], autojunk=False
    )
    aligned = {
        theirs[block.b + i].name: ours[block.a + i].name
        for block in matcher.get_matching_blocks()
        for i in range(block.size)
    }
    names = {}
    as_traced = [n.name for n in final.nodes] == [n.name for n in retraced.nodes]
    for node in final.nodes:
        # A decomposed graph numbers its nodes anew: the same name may stand for another node there.
        sources = [node.name] if as_traced else [source.name for source in node.meta.get("from_node", ())]
        found = next((aligned[s] for s in sources if s in aligned), None)
        if found is not None:
            names[node.name] = found
    return names


def _mark(captured: CapturedModel, plans: Sequence[QuantPlan]) -> tuple[fx.GraphModule, dict[str, tuple[str, str]]]:
    """The captured graph with marks, and each mark's text -> (node, consumer)."""
    wanted = list(dict.fromkeys((p.node, user) for plan in plans for p in plan.points for user in p.users))
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(captured.graph, copied))
    module = fx.GraphModule(captured.graph_module, graph)
    by_name = {node.name: copied[node] for node in captured.graph.nodes if node in copied}
    by_name["output"] = output_node(graph)
    edges = {}
    for value, user in wanted:
        with graph.inserting_before(by_name[user]):
            mark = graph.call_function(_MARK_OP, (by_name[value], f"{value}|{user}"))
        mark.meta["val"] = value_of(by_name[value])
        by_name[user].replace_input_with(by_name[value], mark)
        edges[f"{value}|{user}"] = (value, user)
    module.recompile()
    return module, edges


def _dynamic_shapes(captured: CapturedModel) -> tuple[dict[int, Any] | None, ...] | None:
    if not captured.dynamic_batch:
        return None
    dim, size = torch.export.Dim("batch", min=1), captured.batch_size
    return tuple({0: dim} if x.dim() and x.shape[0] == size else None for x in captured.example_inputs)


def _run(
    module: fx.GraphModule,
    captured: CapturedModel,
    opset: int,
    input_names: Sequence[str] | None,
) -> tuple[torch.onnx.ONNXProgram, dict[str, str]]:
    """The ONNX program, and the name in its exported program's graph -> name in ``module`` of every operation."""
    with contextlib.suppress(Exception):  # whatever the shortcuts do not fit, the long way tells what is wrong
        exported = exported_program(module, captured.example_inputs)
        with shortcuts(module.graph):
            return _translate(exported, opset, input_names), {n.name: n.name for n in module.graph.nodes}
    try:
        with _quiet(), torch.no_grad():
            exported = torch.export.export(
                module, captured.example_inputs, dynamic_shapes=_dynamic_shapes(captured), strict=False
            )
        program = _translate(exported, opset, input_names)
    except Exception as error:
        line = next((text for text in reversed(str(error).splitlines()) if text.strip().startswith("<class")), "")
        raise ModelError(
            f"the graph has no ONNX form: {line or str(error).splitlines()[0]}",
            hint="skip or rewrite that operation; --backend torch_native needs no ONNX",
        ) from error
    assert program.exported_program is not None
    return program, _trace_back(module.graph, exported.graph, program.exported_program.graph)


def _translate(
    exported: torch.export.ExportedProgram, opset: int, input_names: Sequence[str] | None
) -> torch.onnx.ONNXProgram:
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            exported,
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=opset,
            input_names=input_names,
            custom_translation_table=_translations(),
        )
    assert program is not None
    return program


def _translations() -> dict[Any, Any]:
    from onnxscript import opset18 as op

    def mark(x: Any, edge: str = "") -> Any:
        return op.Identity(x)

    return {_MARK_OP: mark}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
