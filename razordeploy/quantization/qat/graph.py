"""The captured graph as a network to train, with a fake quant at every point of the plan that the export uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx, nn

from razordeploy.capture.batchnorm import FoldedNorm
from razordeploy.capture.graph import CapturedModel, attribute, is_float
from razordeploy.errors import ModelError
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.op_kinds import KINDS
from razordeploy.quantization.plan import QParams, QuantPlan, QuantPoint
from razordeploy.quantization.qat.folded import FoldedLayer

MakeFakeQuant = Callable[[QuantPoint, QParams], FakeQuantizeBase]
"""``(point, its scale and zero point) -> the module that rounds its group``."""
QUANT = "_quant_"
"""Start of the names of the fake quants among the submodules."""
_LAYERS = {t for kind in ("conv1d", "conv2d", "conv3d", "linear") for t in KINDS[kind]}
_LAYERS |= {t for kind in ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d") for t in KINDS[kind]}


class QATGraph(nn.Module):
    """A network of the captured graph's operations, parameters and fake quants; nothing is shared with the original.

    It takes the model's input tensors and returns its outputs. Values of one group of the plan pass through one fake
    quant, and only where the group is observed do they move its range.

    Args:
        captured: the float graph; with ``keep_norms`` layers are trained with the batch norms that were folded.
        plan: where the grids are.
        params: the scale and zero point that each group starts with.
        make: builds the fake quant of a group.

    Raises:
        ModelError: the graph has nothing that may be trained.
    """

    def __init__(
        self,
        captured: CapturedModel,
        plan: QuantPlan,
        params: Mapping[str, QParams],
        make: MakeFakeQuant,
    ) -> None:
        super().__init__()
        self.plan = plan
        self._targets: dict[str, str] = {}
        self._folded: dict[str, tuple[str, str]] = {}
        self._on_layers: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        self.module = _copy(captured)
        by_name = {node.name: node for node in self.module.graph.nodes}
        by_name["output"] = next(n for n in self.module.graph.nodes if n.op == "output")
        for node in self.module.graph.nodes:
            if node.op == "get_attr" and "origin" in node.meta:
                self._origins[str(node.target)] = str(node.meta["origin"])
        self._own_tensors()
        self._groups: dict[str, str] = {}
        quantized = self._insert(plan, params, make, by_name)
        self._unfold(quantized)
        self.module.graph.eliminate_dead_code()
        self.module.recompile()
        self._forget_unused()
        self._refuse_frozen()

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Run the graph: inputs ``(N, ...)`` in the model's order."""
        return self.module(*inputs)

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Names and parameters that are trained, but for those of the fake quants."""
        return ((n, p) for n, p in self.named_parameters() if p.requires_grad and QUANT not in n)

    def fake_quants(self) -> Iterator[FakeQuantizeBase]:
        """Every fake quant once."""
        return (m for m in self.modules() if isinstance(m, FakeQuantizeBase))

    def folded_layers(self) -> Iterator[FoldedLayer]:
        """Layers that are trained with their batch norm in them."""
        return (m for m in self.modules() if isinstance(m, FoldedLayer))

    def _refuse_frozen(self) -> None:
        if not any(True for _ in self.trained()):
            raise _frozen()

    def called(self, name: str) -> str:
        """What the model calls the parameter ``name``; one of a norm that was folded goes by its layer."""
        own = name.removeprefix("module.")
        layer, _, leaf = own.partition(".")
        if layer in self._folded:
            return f"{self._origins[layer]}.{leaf}"
        return self._origins.get(own, own)

    def params(self) -> dict[str, QParams]:
        """Scale and zero point of every group, as they are now."""
        found = {}
        for group, name in self._groups.items():
            quant = self.module.get_submodule(name)
            assert isinstance(quant, FakeQuantizeBase)
            q = quant.qparams
            if name in self._on_layers:
                layer = self.module.get_submodule(self._on_layers[name])
                assert isinstance(layer, FoldedLayer)
                q = layer.exported_grid(q)
            found[group] = replace(q, scale=q.scale.detach().cpu().clone(), zero_point=q.zero_point.cpu().clone())
        return found

    @torch.no_grad()
    def trained_model(self, captured: CapturedModel) -> CapturedModel:
        """The graph ``captured`` with the weights as they are now: the float model that is exported."""
        tensors = {t: attribute(self.module, name).detach().cpu().clone() for t, name in self._targets.items()}
        for layer, (weight, bias) in self._folded.items():
            tensors[weight], tensors[bias] = (x.cpu() for x in self.module.get_submodule(layer).exported())  # type: ignore[operator]
        return with_tensors(captured, tensors)

    # Building --------------------------------------------------------------------------------------------------

    def _own_tensors(self) -> None:
        """Give the network its own copies: parameters of what is trained, buffers of the rest."""
        for node in [n for n in self.module.graph.nodes if n.op == "get_attr"]:
            tensor = attribute(self.module, str(node.target))
            if not isinstance(tensor, torch.Tensor):
                continue
            copy: torch.Tensor = tensor.detach().clone()
            owner, _, leaf = str(node.target).rpartition(".")
            module = self.module.get_submodule(owner)
            delattr(module, leaf)
            if is_float(node) and _trains(node, tensor):
                setattr(module, leaf, nn.Parameter(copy))
                self._targets[str(node.target)] = str(node.target)
            else:
                module.register_buffer(leaf, copy)

    def _insert(
        self, plan: QuantPlan, params: Mapping[str, QParams], make: MakeFakeQuant, by_name: Mapping[str, fx.Node]
    ) -> dict[fx.Node, tuple[fx.Node, str]]:
        """Put the fake quants in; returns rounded weight -> (weight, name of its fake quant)."""
        graph, weights = self.module.graph, {}
        for point in plan.points:
            name = self._groups.get(point.group)
            if name is None:
                name = self._groups[point.group] = f"{QUANT}{len(self._groups)}"
                self.module.add_submodule(name, make(_first_observed(plan, point), params[point.group]))
            call = name
            if point.kind == "activation" and not point.observed:
                call = f"{name}_follows_{point.node}"
                self.module.add_submodule(call, _Follower(self.module.get_submodule(name)))
            value = by_name[point.node]
            with graph.inserting_after(value):
                rounded = graph.call_module(call, (value,))
            for user in point.users:
                by_name[user].replace_input_with(value, rounded)
            if point.kind == "weight":
                weights[rounded] = (value, name)
        return weights

    def _unfold(self, quantized: Mapping[fx.Node, tuple[fx.Node, str]]) -> None:
        graph = self.module.graph
        for node in list(graph.nodes):
            if node.op != "call_function" or node.target not in _LAYERS or len(node.args) < 3:
                continue
            weight, quantizer = quantized.get(node.args[1], (node.args[1], None))
            norm = _norm_of(self.module, weight, node.args[2])
            if norm is None or len(weight.users) != 1 or (quantizer and len(node.args[1].users) != 1):
                continue
            name = f"_folded_layer_{node.name}"
            rounder: Any = None if quantizer is None else self.module.get_submodule(quantizer)
            made = FoldedLayer(node.target, node.args[3:], norm, rounder)
            self.module.add_submodule(name, made)
            if quantizer is not None:
                self._on_layers[quantizer] = name
            self._folded[name] = (str(weight.target), str(node.args[2].target))
            self._origins[name] = str(weight.meta.get("origin", weight.target)).rpartition(".")[0]
            with graph.inserting_before(node):
                call = graph.call_module(name, node.args[:1])
            node.replace_all_uses_with(call)
            graph.erase_node(node)
            for target in self._folded[name]:
                self._targets.pop(target, None)

    def _forget_unused(self) -> None:
        used = {str(n.target) for n in self.module.graph.nodes if n.op == "get_attr"}
        inner = tuple(f"{n}." for n, m in self.module.named_modules() if isinstance(m, FakeQuantizeBase | FoldedLayer))
        for name, _ in [*self.module.named_parameters(), *self.module.named_buffers()]:
            if name not in used and not name.startswith(inner):
                owner, _, leaf = name.rpartition(".")
                delattr(self.module.get_submodule(owner), leaf)
                self._targets.pop(name, None)


def check_trainable(model: nn.Module) -> None:
    """Refuse a frozen model before anything is done with it.

    Raises:
        ModelError: none of its parameters asks for a gradient.
    """
    if not any(p.requires_grad for p in model.parameters()):
        raise _frozen()


def _frozen() -> ModelError:
    return ModelError(
        "the model is frozen: none of its parameters asks for a gradient, so that there is nothing to train",
        hint="model.requires_grad_(True), or razordeploy ptq",
    )


class _Follower(nn.Module):
    """Rounds as the fake quant of its group does, whose range it does not move."""

    def __init__(self, leader: nn.Module) -> None:
        super().__init__()
        # In a tuple: its tensors are in the state dict once, under the leader's name.
        self._leader = (leader,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        leader: Any = self._leader[0]
        rounded: torch.Tensor = leader.round(x) if leader.initialized else x
        return rounded


def with_tensors(captured: CapturedModel, tensors: Mapping[str, torch.Tensor]) -> CapturedModel:
    """``captured`` with other parameters, by the targets of their nodes; the original keeps its own."""
    module = _copy(captured)
    for target, value in tensors.items():
        owner, _, leaf = target.rpartition(".")
        place = module.get_submodule(owner)
        before = getattr(place, leaf)
        delattr(place, leaf)
        if isinstance(before, nn.Parameter):
            setattr(place, leaf, nn.Parameter(value, requires_grad=before.requires_grad))
        else:
            place.register_buffer(leaf, value)
    return replace(captured, graph_module=module)


def _copy(captured: CapturedModel) -> fx.GraphModule:
    """A graph module with a graph of its own, whose nodes have the same names, and the same tensors."""
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    result = graph.graph_copy(captured.graph, copied)
    output = graph.output(result)
    for node, own in copied.items():
        own.name, own.meta = node.name, dict(node.meta)
    output.meta = dict(next(n for n in captured.graph.nodes if n.op == "output").meta)
    return fx.GraphModule(captured.graph_module, graph)


def _first_observed(plan: QuantPlan, point: QuantPoint) -> QuantPoint:
    return next((p for p in plan.points if p.group == point.group and p.observed), point)


def _trains(node: fx.Node, tensor: torch.Tensor) -> bool:
    """What asked for a gradient in the model, and the constants of layers that were computed from such."""
    return bool(node.meta.get("trains", isinstance(tensor, nn.Parameter) and tensor.requires_grad))


def _norm_of(module: fx.GraphModule, weight: fx.Node, bias: Any) -> FoldedNorm | None:
    """The batch norm in a folded weight; None where there is none, or more than it was folded in."""
    norm: FoldedNorm | None = weight.meta.get("folded_norm") if isinstance(weight, fx.Node) else None
    if norm is None or not isinstance(bias, fx.Node) or bias.op != "get_attr" or not weight.meta.get("trains"):
        return None
    now = attribute(module, str(weight.target)).detach()
    factor = norm.gamma * (norm.var + norm.eps).rsqrt()
    was = norm.weight * factor.reshape(-1, *[1] * (now.dim() - 1))
    return norm if was.shape == now.shape and torch.allclose(was, now, rtol=1e-4, atol=1e-6) else None
