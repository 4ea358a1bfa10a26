"""Cut a graph into parts that are reconstructed one at a time: single layers, or blocks with one input value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import fx

from razordeploy.capture.graph import is_float
from razordeploy.quantization.algorithms.layers import layer_of
from razordeploy.quantization.op_kinds import kind_of

_ACTIVATIONS = {
    *("relu", "relu6", "leaky_relu", "prelu", "elu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "silu", "mish"),
    "gelu",
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Operations that run together, in execution order; the last one's value is the part's result."""

    nodes: tuple[fx.Node, ...]

    @property
    def output(self) -> fx.Node:
        """The operation whose value is reconstructed."""
        return self.nodes[-1]

    @property
    def inputs(self) -> list[fx.Node]:
        """Values that come from outside, constants left out."""
        inside = set(self.nodes)
        found = (s for n in self.nodes for s in n.all_input_nodes if s not in inside and s.op != "get_attr")
        return list(dict.fromkeys(found))

    def layers(self) -> list[fx.Node]:
        """Layers with a constant weight."""
        return [n for n in self.nodes if layer_of(n) is not None]


def single_layers(graph: fx.Graph, wanted: set[str]) -> Iterator[Part]:
    """Every layer in ``wanted`` with the activation function right behind it."""
    for node in graph.nodes:
        if node.name not in wanted or layer_of(node) is None:
            continue
        nodes = [node]
        user = next(iter(node.users), None)
        if len(node.users) == 1 and user is not None and kind_of(user) in _ACTIVATIONS:
            nodes.append(user)
        yield Part(nodes=tuple(nodes))


def blocks(graph: fx.Graph, wanted: set[str], max_layers: int) -> Iterator[Part]:
    """Parts between values that all later computation goes through: the residual blocks of a ResNet or a transformer.

    Parts without a layer in ``wanted`` are left out; one with more than ``max_layers`` comes as single layers.
    """
    for part in _between_cuts(graph):
        layers = [n for n in part.layers() if n.name in wanted]
        if len(layers) > max_layers:
            yield from single_layers(graph, {n.name for n in layers})
        elif layers:
            yield part


def _between_cuts(graph: fx.Graph) -> Iterator[Part]:
    """Split the operations wherever exactly one tensor is alive."""
    nodes = [n for n in graph.nodes if n.op in ("call_function", "placeholder")]
    index = {n: i for i, n in enumerate(nodes)}
    ends = {n: max((index.get(u, len(nodes)) for u in n.users), default=index[n]) for n in nodes}
    held: list[fx.Node] = []
    live: set[fx.Node] = set()
    for i, node in enumerate(nodes):
        if is_float(node):
            live.add(node)
        live = {n for n in live if ends[n] > i}
        if node.op == "call_function":
            held.append(node)
        if held and live == {node} and not _fuses_next(node):
            yield Part(nodes=tuple(held))
            held = []
    if held:
        yield Part(nodes=tuple(held))


def _fuses_next(node: fx.Node) -> bool:
    """An activation function belongs to the part before it."""
    user = next(iter(node.users), None)
    return len(node.users) == 1 and user is not None and kind_of(user) in _ACTIVATIONS


def activation_behind(node: fx.Node) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation function that alone reads ``node``, if it has no other operand; else the identity."""
    user = next(iter(node.users), None)
    if len(node.users) != 1 or user is None or kind_of(user) not in _ACTIVATIONS or user.all_input_nodes != [node]:
        return lambda value: value
    rest, kwargs, target = user.args[1:], user.kwargs, user.target
    return lambda value: target(value, *rest, **kwargs)  # type: ignore[operator]
