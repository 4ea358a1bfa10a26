"""A captured graph as the exported program that ``torch.onnx.export`` takes, without tracing it a second time."""

from __future__ import annotations

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)

from razordeploy.capture.graph import attribute, flat_nodes, output_node


def exported_program(module: fx.GraphModule, example_inputs: tuple[torch.Tensor, ...]) -> ExportedProgram:
    """Lift the parameters of ``module`` to inputs of its graph, which is all that tells it from an exported program.

    Every node keeps its name. ``module`` itself is left as it is.

    Raises:
        ValueError: a node without a recorded value, or one that is not an operator: only tracing tells its shape.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    inputs: list[InputSpec] = []
    state: dict[str, torch.Tensor] = {}
    for node in _of_kind(module.graph, "get_attr"):
        target = str(node.target)
        state[target] = attribute(module, target)
        copied[node] = graph.placeholder(node.name)
        copied[node].meta = {**node.meta, "val": node.meta.get("val", state[target])}
        is_parameter = isinstance(state[target], torch.nn.Parameter)
        kind = InputKind.PARAMETER if is_parameter else InputKind.BUFFER
        inputs.append(InputSpec(kind, TensorArgument(node.name), target, None if is_parameter else True))
    for node in _of_kind(module.graph, "placeholder"):
        copied[node] = graph.node_copy(node)
        inputs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None))
    for node in _of_kind(module.graph, "call_function"):
        copied[node] = graph.node_copy(node, copied.__getitem__)
    if len(copied) != len(module.graph.nodes) - 1 or any(
        "val" not in new.meta or new.name != node.name for node, new in copied.items()
    ):
        raise ValueError("a node of the graph has no recorded value")
    returned = [copied[node] for node in flat_nodes(output_node(module.graph).args[0])]
    graph.output(tuple(returned))
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in returned]
    return ExportedProgram(
        root=module,
        graph=graph,
        graph_signature=ExportGraphSignature(inputs, outputs),
        state_dict=state,
        range_constraints={},
        module_call_graph=[ModuleCallEntry("", None)],
        example_inputs=(example_inputs, {}),
    )


def _of_kind(graph: fx.Graph, op: str) -> list[fx.Node]:
    return [node for node in graph.nodes if node.op == op]
