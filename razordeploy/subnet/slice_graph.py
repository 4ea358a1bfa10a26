"""The captured graph of a model with other widths: works whatever the model's own code says about them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from razordeploy.capture.graph import attribute, output_node
from razordeploy.subnet.slice_constants import Patch, Scaled
from razordeploy.subnet.slice_state import named_tensors
from razordeploy.subnet.tracer.trace import Trace

_aten = torch.ops.aten
_STATISTICS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d, torch.nn.SyncBatchNorm)
_DROPOUTS: dict[object, type[torch.nn.Module]] = {
    _aten.dropout.default: torch.nn.Dropout,
    _aten.feature_dropout.default: torch.nn.Dropout2d,
    _aten.alpha_dropout.default: torch.nn.AlphaDropout,
}


def sliced_graph(
    model: torch.nn.Module, trace: Trace, patches: Mapping[fx.Node, Patch], state: Mapping[str, torch.Tensor]
) -> fx.GraphModule:
    """Return ``trace``'s graph with new constants and tensors.

    Every parameter and buffer of ``model`` keeps its name, batch norms and dropout follow ``train()`` and ``eval()``.
    What the capture in eval mode does not see stays out: stochastic depth, dropout inside fused attention.
    """
    graph, copies = _copied(trace.graph_module.graph)
    _apply(graph, patches, copies)
    result = fx.GraphModule(_root(model, trace, state), graph, class_name=type(model).__name__)
    for name in state:
        _place(result, model, name, state[name])
    _layers(result, model, state)
    result.graph.eliminate_dead_code()
    result.graph.lint()
    result.recompile()
    result.training = model.training
    return result


def _copied(graph: fx.Graph) -> tuple[fx.Graph, dict[fx.Node, fx.Node]]:
    copies: dict[fx.Node, fx.Node] = {}
    result = fx.Graph()
    returned = result.graph_copy(graph, copies)
    result.output(returned)
    output_node(result).meta.update(output_node(graph).meta)
    result.set_codegen(graph._codegen)
    return result, copies


def _apply(graph: fx.Graph, patches: Mapping[fx.Node, Patch], copies: Mapping[fx.Node, fx.Node]) -> None:
    for old, patch in patches.items():
        node = copies[old]

        def resolved(value: Any, node: fx.Node = node) -> Any:
            if isinstance(value, fx.Node):
                return copies[value]
            if not isinstance(value, Scaled):
                return value
            with graph.inserting_before(node):
                product = graph.call_function(operator.mul, (copies[value.node], value.times))
                return graph.call_function(operator.floordiv, (product, value.over))

        node.target = patch.target  # type: ignore[assignment]
        node.args = _mapped(patch.args, resolved)
        node.kwargs = _mapped(patch.kwargs, resolved)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(item, change) for item in value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    return change(value)


def _root(model: torch.nn.Module, trace: Trace, state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Everything that the graph reads: sliced state, and copies of the code's own constants."""
    names = {str(node.target) for node in trace.graph_module.graph.nodes if node.op == "get_attr"}
    return {
        name: state[name] if name in state else copy.deepcopy(attribute(trace.graph_module, name)) for name in names
    }


def _place(result: torch.nn.Module, model: torch.nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Register a tensor under its name, persistent as the original is."""
    path, _, leaf = name.rpartition(".")
    owner, original = result, model
    for part in filter(None, path.split(".")):
        original = getattr(original, part)
        if not isinstance(owner._modules.get(part), torch.nn.Module):
            owner.add_module(part, torch.nn.Module())
        owner = getattr(owner, part)
    owner.training = original.training
    for table in (owner._parameters, owner._buffers):
        table.pop(leaf, None)
    if isinstance(tensor, torch.nn.Parameter):
        owner.register_parameter(leaf, tensor)
    else:
        owner.register_buffer(leaf, tensor, persistent=leaf not in original._non_persistent_buffers_set)


def _layers(result: fx.GraphModule, model: torch.nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Call batch norms and dropout as the layers they are, so that they know about training."""
    olds = named_tensors(model)
    memo = {id(olds[name]): tensor for name, tensor in state.items()}
    dropouts = 0
    for node in list(result.graph.nodes):
        if node.target in _DROPOUTS:
            dropouts += 1
            layer = _DROPOUTS[node.target](float(node.args[1]))
            layer.train(model.training)
            _call_layer(result, node, f"_dropout_{dropouts}", layer)
        elif node.target is _aten.batch_norm.default and isinstance(node.args[3], fx.Node):
            path = str(node.args[3].target).rpartition(".")[0]
            original = model.get_submodule(path) if node.args[3].op == "get_attr" else model
            if type(original) in _STATISTICS:
                layer = copy.deepcopy(original, dict(memo))
                layer.num_features = len(layer.running_mean)  # type: ignore[arg-type,assignment]
                _call_layer(result, node, path, layer)


def _call_layer(result: fx.GraphModule, node: fx.Node, path: str, layer: torch.nn.Module) -> None:
    owner, _, leaf = path.rpartition(".")
    result.get_submodule(owner).add_module(leaf, layer)
    with result.graph.inserting_before(node):
        call = result.graph.call_module(path, (node.args[0],))
    call.meta.update(node.meta)
    node.replace_all_uses_with(call)
    result.graph.erase_node(node)
