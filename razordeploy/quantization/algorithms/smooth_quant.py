"""SmoothQuant: channels with large activations give part of their range to the weights that read them.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.layers import Layer, layer_of
from razordeploy.quantization.algorithms.paths import is_homogeneous
from razordeploy.quantization.algorithms.walk import Walk
from razordeploy.quantization.draft import Draft

_aten = torch.ops.aten
_NORM_SHAPE, _NORM_WEIGHT, _NORM_BIAS = 1, 2, 3


@dataclass(frozen=True, kw_only=True)
class SmoothQuant:
    """``s_j = max|X_j|^alpha / max|W_j|^(1 - alpha)``; ``X <- X / s``, ``W <- W s`` (equation 4).

    The division goes into what computes X: a layer norm, or a layer with at most a ReLU between. Where X comes from
    anything else, ``insert`` adds a multiplication, which costs time in the engine.
    """

    alpha: float = 0.5
    """0: weights keep their range; 1: activations become equal."""
    insert: bool = False
    """True: a multiplication where the division cannot be folded."""
    samples: int = 256
    """Samples that the activations' ranges are taken from."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise RecipeError(f"SmoothQuant: expected alpha from 0 to 1, got {self.alpha}")

    def apply(self, draft: Draft, work: Work) -> None:
        """Change weights and norms, or add multiplications, and calibrate anew."""
        places = list(self._places(draft))
        extents: dict[fx.Node, torch.Tensor] = {}
        walk = Walk(draft, work, limit=self.samples, quantized=False)
        axes = {value: readers[0].channel_axis for value, readers, _ in places}

        def after(node: fx.Node) -> None:
            if node in axes:
                extents[node] = torch.stack([_extent(v, axes[node]) for v in walk.floats[node]]).amax(0)

        walk.run(after=after)
        for value, readers, producer in places:
            if value in extents:
                self._smooth(draft, value, readers, producer, extents[value])
        work.notes.append(f"SmoothQuant: {len(extents)} activations")
        if extents:
            draft.refresh()
            draft.recalibrate(work.batches())

    def _places(self, draft: Draft) -> Iterator[tuple[fx.Node, list[Layer], fx.Node | None]]:
        """``(value, the layers that read it, what the division is folded into)``."""
        int8 = {op.node for op in draft.plan.ops if op.int8}
        for node in draft.captured.graph.nodes:
            found = [layer_of(user) for user in node.users]
            readers = [layer for layer in found if layer is not None and layer.input is node]
            if node.op != "call_function" or not readers or len(readers) != len(node.users):
                continue
            alike = len({layer.linear for layer in readers}) == 1 and all(len(r.weight.users) == 1 for r in readers)
            if not alike or not any(layer.name in int8 for layer in readers):
                continue
            producer = _folds_into(node)
            if producer is not None or self.insert:
                yield node, readers, producer

    def _smooth(
        self, draft: Draft, value: fx.Node, readers: list[Layer], producer: fx.Node | None, extent: torch.Tensor
    ) -> None:
        weights = {layer: draft.constant(layer.weight).double() for layer in readers}
        largest = torch.stack([layer.input_extent(w) for layer, w in weights.items()]).amax(0)
        s = smoothing_factors(extent.double(), largest, self.alpha)
        if producer is None:
            _insert(draft, value, s, readers[0].channel_axis)
        else:
            _divide(draft, producer, s)
        for layer, weight in weights.items():
            draft.set_constant(layer.weight, layer.scaled_inputs(weight, s).float(), equivalent=True)


def smoothing_factors(activations: torch.Tensor, weights: torch.Tensor, alpha: float) -> torch.Tensor:
    """``max|X|^alpha / max|W|^(1 - alpha)`` per channel (equation 4); 1 where either has no range."""
    s = activations.pow(alpha) / weights.pow(1 - alpha)
    return torch.where((activations > 0) & (weights > 0), s, torch.ones_like(s))


def _extent(value: torch.Tensor, axis: int) -> torch.Tensor:
    axis %= value.dim()
    return value.abs().amax([d for d in range(value.dim()) if d != axis])


def _folds_into(node: fx.Node) -> fx.Node | None:
    """The layer norm or layer whose parameters can take a factor of ``node``'s channels."""
    if node.target is _aten.layer_norm.default:
        shape = node.args[_NORM_SHAPE]
        has_weight = len(node.args) > _NORM_WEIGHT and _is_own(node.args[_NORM_WEIGHT])
        bias = node.args[_NORM_BIAS] if len(node.args) > _NORM_BIAS else None
        one_axis = isinstance(shape, (list, tuple)) and len(shape) == 1
        return node if one_axis and has_weight and (bias is None or _is_own(bias)) else None
    layer = layer_of(node)
    if layer is not None:
        return node if len(layer.weight.users) == 1 and (layer.bias is None or _is_own(layer.bias)) else None
    source = node.args[0] if node.args else None
    if isinstance(source, fx.Node) and is_homogeneous(node) and len(source.users) == 1:
        return _folds_into(source)
    return None


def _is_own(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "get_attr" and len(node.users) == 1


def _divide(draft: Draft, producer: fx.Node, s: torch.Tensor) -> None:
    layer = layer_of(producer)
    if layer is not None:
        weight = layer.scaled_outputs(draft.constant(layer.weight).double(), 1 / s)
        draft.set_constant(layer.weight, weight.float(), equivalent=True)
        parameters = [layer.bias]
    else:
        parameters = [n if isinstance(n, fx.Node) else None for n in producer.args[_NORM_WEIGHT : _NORM_BIAS + 1]]
    for node in parameters:
        if node is not None:
            draft.set_constant(node, (draft.constant(node).double() / s).float(), equivalent=True)


def _insert(draft: Draft, value: fx.Node, s: torch.Tensor, axis: int) -> None:
    graph, module = draft.captured.graph, draft.captured.graph_module
    shape = [-1] if axis == -1 else [1, -1, *[1] * (value.meta["val"].dim() - 2)]
    name = f"_smooth_{value.name}"
    module.register_buffer(name, (1 / s).float().view(shape))
    users = list(value.users)
    with graph.inserting_after(value):
        factor = graph.get_attr(name)
    factor.meta = {"val": getattr(module, name), "origin": name}
    with graph.inserting_after(factor):
        product = graph.call_function(_aten.mul.Tensor, (value, factor), name=f"smoothed_{value.name}")
    product.meta = dict(value.meta)
    for user in users:
        user.replace_input_with(value, product)
