"""Read a captured graph once, in order, and give every dimension of every tensor its axis."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import fx

from razordeploy.capture.graph import attribute, flat_nodes, output_node, source_line
from razordeploy.subnet.tracer import rules_layers, rules_norm, rules_pointwise, rules_shape, rules_split
from razordeploy.subnet.tracer.axes import Axis, find, freeze, leaf

Dims: TypeAlias = list[Axis]
"""One axis per dimension of a tensor."""
Rule: TypeAlias = Callable[["Tracer", fx.Node], "Dims | tuple[Dims, ...]"]

_RULES: dict[object, Rule] = {
    **rules_pointwise.RULES,
    **rules_shape.RULES,
    **rules_split.RULES,
    **rules_norm.RULES,
    **rules_layers.RULES,
}


@dataclass(kw_only=True)
class Grouped:
    """A grouped convolution whose groups read different channels: which rows of its weight read which."""

    rows: tuple[Axis, ...]
    """The part of dimension 0 that belongs to each group."""
    own: tuple[Axis, ...]
    """Which channels dimension 1 stands for, group by group."""


@dataclass(kw_only=True)
class Trace:
    """The axes of a graph."""

    graph_module: fx.GraphModule
    dims: dict[fx.Node, Any] = field(default_factory=dict)
    """Axes of each tensor node; a tuple of them where the node returns several tensors."""
    state: dict[str, Dims] = field(default_factory=dict)
    """Axes of each parameter and buffer that the graph reads."""
    consumed: set[tuple[str, int]] = field(default_factory=set)
    """``(tensor, dimension)`` that is contracted with an activation: input channels."""
    looked_up: set[tuple[str, int]] = field(default_factory=set)
    """``(tensor, dimension)`` whose entries are activations: columns of an embedding, even one that a layer shares."""
    weights: set[str] = field(default_factory=set)
    """Tensors that are multiplied with activations, or looked up: weights of layers."""
    grouped: dict[str, Grouped] = field(default_factory=dict)
    """Grouped convolutions whose groups keep channels of their own, by the weight's name."""
    notes: dict[fx.Node, tuple[Axis, ...]] = field(default_factory=dict)
    """Axes that a node's constant arguments depend on, beside those of its results."""
    statistical: list[Axis] = field(default_factory=list)
    """Axes over which a mean, a variance or a softmax runs."""
    heads: list[Axis] = field(default_factory=list)
    """Axes over which a product of two activations runs as a batch."""
    groups: list[Axis] = field(default_factory=list)
    """Axes that count the groups of a grouped convolution or a group norm."""

    def all_axes(self) -> Iterator[Axis]:
        """Yield every axis that is written down anywhere, repeats kept."""
        for dims in self.dims.values():
            for part in dims if isinstance(dims, tuple) else (dims,):
                yield from part
        for group in self.grouped.values():
            yield from group.own
        for axes in (*self.state.values(), *self.notes.values()):
            yield from axes


class Tracer:
    """State of one reading; the rules call its methods."""

    def __init__(self, graph_module: fx.GraphModule, state_names: Iterable[str]) -> None:
        self.trace = Trace(graph_module=graph_module)
        self.shuffles = rules_shape.find_shuffles(graph_module.graph)
        """Reshapes that take part in a channel shuffle, with the part they play."""
        self._state_names = set(state_names)
        self._origins: dict[fx.Node, list[tuple[str, int] | None]] = {}

    def run(self) -> Trace:
        """Read every node; what no rule knows is kept whole."""
        for node in self.trace.graph_module.graph.nodes:
            if node.op == "get_attr":
                self._read_state(node)
            elif node.op == "placeholder":
                self._store(node, self.fixed(node, "it is an input of the model"))
            elif node.op == "call_function":
                self._call(node)
            elif node.op == "call_module":
                self._unknown(node)
        for node in flat_nodes(output_node(self.trace.graph_module.graph).args[0]):
            for axis in self._flat(self.trace.dims.get(node)):
                freeze(axis, "it is an output of the model")
        return self.trace

    # What rules use.

    def axes(self, node: object) -> Dims:
        """Axes of a tensor argument; empty for anything else."""
        dims = self.trace.dims.get(node) if isinstance(node, fx.Node) else None
        return [find(axis) for axis in dims] if isinstance(dims, list) else []

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Sizes of a tensor node, those of the example for symbolic ones."""
        return _sizes(node.meta["val"])

    def shapes(self, node: fx.Node) -> list[tuple[int, ...]]:
        """Sizes of each tensor of a node that returns several."""
        return [_sizes(value) if isinstance(value, torch.Tensor) else () for value in node.meta["val"]]

    def argument(self, node: fx.Node, name: str) -> Any:
        """Argument of a node by its name in the operator's schema, defaults filled in."""
        position, default = _schema(node.target)[name]
        if position < len(node.args):
            return node.args[position]
        return node.kwargs.get(name, default)

    def number(self, node: fx.Node, position: int) -> int:
        """Positional argument of a node that is a number."""
        return int(node.args[position])  # type: ignore[arg-type]

    def fixed(self, node: fx.Node, reason: str) -> Any:
        """Axes of a node's result that can never shrink."""
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            return [leaf(size, reason) for size in _sizes(value)]
        if isinstance(value, (tuple, list)):
            return tuple([leaf(n, reason) for n in shape] for shape in self.shapes(node))
        return None

    def where(self, node: fx.Node) -> str:
        """Operator and source line, for reasons."""
        line = source_line(node)
        name = str(node.target).removeprefix("aten.").removesuffix(".default")
        return f"{name} at {line}" if line else name

    def freeze(self, axes: Iterable[Axis], node: fx.Node, why: str) -> None:
        """Keep ``axes`` whole because of what ``node`` does."""
        for axis in axes:
            freeze(axis, f"{why} ({self.where(node)})")

    def note(self, node: fx.Node, *axes: Axis) -> None:
        """Remember axes that the constants of ``node`` depend on."""
        self.trace.notes[node] = axes

    def origin(self, node: object, dim: int) -> tuple[str, int] | None:
        """Which dimension of which parameter this is, seen through transpositions and rescaling."""
        dims = self._origins.get(node) if isinstance(node, fx.Node) else None
        return dims[dim] if dims else None

    def weight(self, node: object, *, consumes: Sequence[int]) -> None:
        """Say that ``node`` is multiplied with an activation along the dimensions ``consumes``."""
        if not isinstance(node, fx.Node) or node not in self._origins:
            return
        for dim, origin in enumerate(self._origins[node]):
            if origin is not None:
                self.trace.weights.add(origin[0])
                if dim in consumes:
                    self.trace.consumed.add(origin)

    def group(self, weight: str, *, rows: Sequence[Axis], own: Sequence[Axis]) -> None:
        """Record a grouped weight: ``rows`` of its dimension 0 and, group by group, the channels of dimension 1."""
        self.trace.grouped[weight] = Grouped(rows=tuple(rows), own=tuple(own))

    # The walk.

    def _call(self, node: fx.Node) -> None:
        if not _carries_tensor(node):
            return
        rule = _RULES.get(node.target)
        if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
            rule = rules_pointwise.pointwise
        if rule is None:
            self._unknown(node)
            return
        dims = rule(self, node)
        if self._fits(node, dims):
            self._store(node, dims)
            self._follow_origin(node)
        else:
            self._unknown(node)

    def _unknown(self, node: fx.Node) -> None:
        inputs = [axis for arg in node.all_input_nodes for axis in self._flat(self.trace.dims.get(arg))]
        self.freeze(inputs, node, "the tracer has no rule for what is done with it")
        self._store(node, self.fixed(node, f"it comes from an operator without a rule ({self.where(node)})"))

    def _store(self, node: fx.Node, dims: Any) -> None:
        if dims is not None:
            self.trace.dims[node] = dims

    def _fits(self, node: fx.Node, dims: Any) -> bool:
        """Check a rule's answer against the shape that the capture recorded."""
        if isinstance(dims, tuple):
            return all(not d or [a.size for a in d] == list(s) for d, s in zip(dims, self.shapes(node), strict=False))
        return [axis.size for axis in dims] == list(self.shape(node))

    def _flat(self, dims: Any) -> list[Axis]:
        if isinstance(dims, tuple):
            return [axis for part in dims for axis in self._flat(part)]
        return [find(axis) for axis in dims or ()]

    def _read_state(self, node: fx.Node) -> None:
        name = str(node.target)
        value = attribute(self.trace.graph_module, name)
        if not isinstance(value, torch.Tensor):
            return
        reason = None
        if name not in self._state_names:
            reason = "it is combined with a constant of the code"
        elif not value.is_floating_point():
            reason = f"it is combined with the table '{name}'"
        dims = [leaf(size, reason) for size in value.shape]
        self._store(node, dims)
        if reason is None:
            self.trace.state[name] = dims
            self._origins[node] = [(name, dim) for dim in range(value.dim())]

    def _follow_origin(self, node: fx.Node) -> None:
        """Weights that are transposed or rescaled before use keep their roles."""
        tensors = [arg for arg in node.all_input_nodes if arg in self.trace.dims]
        if not tensors or any(arg not in self._origins for arg in tensors):
            return
        dims = self.axes(node)
        if not dims:
            return
        for arg in tensors:
            if self.shape(arg) == self.shape(node):
                self._origins[node] = self._origins[arg]
                return
        known: dict[int, tuple[str, int]] = {}
        for arg in tensors:
            for axis, origin in zip(self.axes(arg), self._origins[arg], strict=True):
                if origin is not None:
                    known.setdefault(id(axis), origin)
        self._origins[node] = [known.get(id(axis)) if axis.size > 1 else None for axis in dims]


@functools.cache
def _schema(target: Any) -> dict[str, tuple[int, Any]]:
    return {
        argument.name: (position, argument.default_value) for position, argument in enumerate(target._schema.arguments)
    }


def _sizes(value: torch.Tensor) -> tuple[int, ...]:
    return tuple(_hint(size) for size in value.shape)


def _hint(size: Any) -> int:
    return size if isinstance(size, int) else int(size.node.hint)


def _carries_tensor(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) or (
        isinstance(value, (tuple, list)) and any(isinstance(v, torch.Tensor) for v in value)
    )


def trace(graph_module: fx.GraphModule, state_names: Iterable[str]) -> Trace:
    """Give every dimension of ``graph_module`` its axis; ``state_names`` are the tensors that may be sliced."""
    return Tracer(graph_module, state_names).run()
