"""One backend's model on its way to the engine: graph, plan and scales, which algorithms may change before export."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx

from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.statistics import Statistics, collect, requests, resolve

_LINEAR = torch.ops.aten.linear.default

Replan = Callable[[CapturedModel, Mapping[str, str]], QuantPlan]
"""``(graph, node -> why it stays float) -> plan`` of one backend."""


@dataclass(kw_only=True)
class Draft:
    """What one engine is made from; until an algorithm changes it, the float model, its plan and its scales."""

    captured: CapturedModel
    """The graph whose weights are quantized."""
    plan: QuantPlan
    params: dict[str, QParams]
    replan: Replan
    floats: dict[str, torch.Tensor] = field(default_factory=dict)
    """Constant's node -> its value in the float model that the draft is held against, where that differs: a weight
    that was rounded, a bias that was corrected."""
    kept_float: dict[str, str] = field(default_factory=dict)
    """Operation's node -> why it stays float, beyond what recipe and backend say."""
    inserted: list[tuple[str, str]] = field(default_factory=list)
    """Constants that were added: (reading node, node of the constant)."""
    own: bool = False
    """True: the graph is this draft's own copy, and differs from the captured float model."""

    def copied(self) -> Draft:
        """A draft that can be changed without changing this one; tensors are shared until they are replaced."""
        twin = replace(
            self,
            params=dict(self.params),
            floats=dict(self.floats),
            kept_float=dict(self.kept_float),
            inserted=list(self.inserted),
        )
        twin.captured = _copied(self.captured)
        twin.own = True
        return twin

    def node(self, name: str) -> fx.Node:
        """The graph's node of that name."""
        return next(n for n in self.captured.graph.nodes if n.name == name)

    def constant(self, node: fx.Node) -> torch.Tensor:
        """Value of a constant's node in the graph that is quantized."""
        value: torch.Tensor = attribute(self.captured.graph_module, str(node.target)).detach()
        return value

    def float_constant(self, node: fx.Node) -> torch.Tensor:
        """Value of a constant's node in the float model."""
        return self.floats.get(node.name, self.constant(node))

    def set_constant(self, node: fx.Node, value: torch.Tensor, *, equivalent: bool = False) -> None:
        """Replace a constant; ``equivalent``: in the float model too, which computes the same with the other changes.

        Only this node's reading changes: another node of the same attribute keeps the old value.
        """
        assert self.own, "a draft is changed after copied() only"
        if equivalent:
            self.floats.pop(node.name, None)
        else:
            self.floats.setdefault(node.name, self.constant(node))
        name = f"_changed_{node.name}"
        module = self.captured.graph_module
        if hasattr(module, name):
            delattr(module, name)
        module.register_buffer(name, value.detach().clone().contiguous())
        node.meta.setdefault("origin", str(node.target))
        node.target = name
        node.meta["val"] = getattr(module, name)

    def bias_of(self, layer: fx.Node, position: int = 2) -> fx.Node:
        """The node of a layer's bias; one of zeros, or a reader of its own, is added where there is none."""
        bias = layer.args[position] if len(layer.args) > position else None
        if isinstance(bias, fx.Node) and len(bias.users) == 1:
            return bias
        weight = layer.args[1]
        assert isinstance(weight, fx.Node)
        channels = int(layer.meta["val"].shape[-1 if layer.target is _LINEAR else 1])
        module, name = self.captured.graph_module, f"_bias_{layer.name}"
        value = self.constant(bias) if isinstance(bias, fx.Node) else torch.zeros(channels)
        module.register_buffer(name, value.clone())
        with self.captured.graph.inserting_before(layer):
            node = self.captured.graph.get_attr(name)
        node.meta = {"val": value, "origin": str(weight.meta.get("origin", weight.target))}
        if "nn_module_stack" in layer.meta:
            node.meta["nn_module_stack"] = layer.meta["nn_module_stack"]
        if isinstance(bias, fx.Node):
            self.floats[node.name] = self.float_constant(bias)
        args = list(layer.args) + [None] * (position + 1 - len(layer.args))
        args[position] = node
        layer.args = tuple(args)
        self.inserted.append((layer.name, node.name))
        return node

    def float_model(self) -> CapturedModel:
        """The float model that the draft is held against, with every node of the draft's graph."""
        if not self.floats:
            return self.captured
        twin = _copied(self.captured)
        for node in twin.graph.nodes:
            if node.name in self.floats:
                name = f"_float_{node.name}"
                twin.graph_module.register_buffer(name, self.floats[node.name].clone())
                node.target = name
        twin.graph_module.recompile()
        return twin

    def changed(self, other: Draft) -> bool:
        """Tell whether any constant or the graph itself differs from ``other``'s."""
        mine, others = ({n.name: n.target for n in d.captured.graph.nodes} for d in (self, other))
        return mine != others

    def keep_float(self, reasons: Mapping[str, str], batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
        """Leave some operations in float, with the weights and biases that they had; all other scales stay.

        Args:
            reasons: operation's node -> why.
            batches: inputs, for scales that the new plan needs and the old one had not.
        """
        self.kept_float = {**self.kept_float, **reasons}
        self.plan = self.replan(self.captured, self.kept_float)
        new = tuple(p for p in self.plan.points if p.group not in self.params)
        part = replace(self.plan, points=new)
        seen = collect(self.float_model(), [part], batches) if requests([part]) else Statistics()
        known = {**self.params, **resolve(self.captured, part, seen)}
        self.params = {p.group: known[p.group] for p in self.plan.points}
        rounded = {p.node for p in self.plan.points if p.kind == "weight"}
        parts = {a for n in self.captured.graph.nodes if n.name in reasons for a in n.args if isinstance(a, fx.Node)}
        for node in [n for n in parts if n.name in self.floats and n.name not in rounded]:
            self.set_constant(node, self.floats[node.name], equivalent=True)

    def without(self, reasons: Mapping[str, str], batches: Iterable[tuple[torch.Tensor, ...]]) -> Draft:
        """A draft that leaves some operations in float besides; as ``keep_float``, and this one is not changed."""
        twin = self.copied() if self.own else replace(self, params=dict(self.params))
        twin.keep_float(reasons, batches)
        return twin

    def recalibrate(self, batches: Iterable[tuple[torch.Tensor, ...]]) -> None:
        """Place the grids anew in the graph as it is now, and take their scales from ``batches``."""
        self.plan = self.replan(self.captured, self.kept_float)
        self.params = resolve(self.captured, self.plan, collect(self.float_model(), [self.plan], batches))

    def refresh(self) -> None:
        """Let the graph's code follow its nodes."""
        self.captured.graph.lint()
        self.captured.graph_module.recompile()


def _copied(captured: CapturedModel) -> CapturedModel:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(captured.graph, copies))
    names = {node.name: copy.deepcopy(node.meta.get("custom")) for node in captured.graph.nodes}
    module = fx.GraphModule(captured.graph_module, graph)
    for node, twin in copies.items():
        if twin.name != node.name:
            twin.name = node.name
        if names[node.name] is not None:
            twin.meta["custom"] = names[node.name]
    return replace(captured, graph_module=module)


def draft_state(draft: Draft) -> dict[str, Any]:
    """All that tells ``draft`` from the plain one, as tensors and plain types; ``restored_draft`` reads it back."""
    graph = draft.captured.graph
    return {
        "constants": {n.name: draft.constant(n) for n in graph.nodes if str(n.target).startswith("_changed_")},
        "floats": dict(draft.floats),
        "inserted": list(draft.inserted),
        "kept_float": dict(draft.kept_float),
        "params": {group: (q.scale.detach(), q.zero_point) for group, q in draft.params.items()},
        "own": draft.own,
    }


def restored_draft(plain: Draft, state: Mapping[str, Any]) -> Draft:
    """The draft that ``state`` was made of; ``plain`` is the one that it came from."""
    if not state["own"]:
        return plain
    draft = plain.copied()
    for reader, _ in state["inserted"]:
        draft.bias_of(draft.node(reader))
    nodes = {n.name: n for n in draft.captured.graph.nodes}
    for name, value in state["constants"].items():
        draft.set_constant(nodes[name], value)
    draft.floats = dict(state["floats"])
    draft.kept_float = dict(state["kept_float"])
    draft.plan = draft.replan(draft.captured, draft.kept_float)
    schemes = {p.group: p.scheme for p in draft.plan.points}
    draft.params = {
        group: QParams(scale=scale, zero_point=zero_point, scheme=schemes[group])
        for group, (scale, zero_point) in state["params"].items()
        if group in schemes
    }
    draft.refresh()
    return draft
