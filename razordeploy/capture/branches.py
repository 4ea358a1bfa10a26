"""Merge parallel linear branches over one value into one layer: RepVGG, MobileOne, RepLKNet ... as they are trained.

``sum_i conv_i(x) + x * g + s + x`` is one convolution (Ding et al., 2021, section 3.3), whatever the modules are called
and whether they have a method that says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from razordeploy.capture.affine import (
    DIVIDES,
    FACTORS,
    OFFSETS,
    SUBTRACTS,
    fold_constant_affine,
    per_channel,
    value_and_constant,
)
from razordeploy.capture.batchnorm import KEEP, constant, new_buffer, trains
from razordeploy.capture.graph import attribute, module_path, shape_of
from razordeploy.capture.kernels import Kernel, added, can_add, diagonal, rounding_db

_aten = torch.ops.aten
_LAYERS = {_aten.conv1d.default: 1, _aten.conv2d.default: 2, _aten.conv3d.default: 3, _aten.linear.default: 0}
_LEAST_DB = 32.0
"""Of a kernel in eight bits where a factor per channel joins it, as ``rounding_db`` counts: about what rounding its
inputs leaves. RepVGG's dense 3x3 layers of 48 channels and more stay below, MobileOne's pointwise and depthwise above:
the former's int8 outputs have a cosine of 0.995 to the float model's instead of 0.957, at 1.1 times the latency."""
_FULL = "no_factor_joins"
"""Key of a layer's ``meta``: eight bits do not hold it with the factors beside it."""
_MERGED = "merged_branches"
"""Key of a node's ``meta``: the layer is a sum of branches already."""


@dataclass(frozen=True, kw_only=True)
class _Term:
    """One operand of a tree of additions."""

    node: Any
    """A node, or a number."""
    sign: int


@dataclass(frozen=True, kw_only=True)
class _Branch:
    """A term that is a linear layer over ``source``, or a factor and an offset per channel."""

    term: _Term
    source: fx.Node
    kernel: Kernel
    made_by: tuple[fx.Node, ...]
    """The layer, or the multiplications and additions; none for ``source`` itself."""
    layer: fx.Node | None = None


def merge_parallel_layers(graph_module: fx.GraphModule) -> None:
    """Make one layer of convolutions or linear layers that read one value and are added, in float64.

    So are a factor and an offset per channel of that value (what a batch norm leaves), and the value itself, where two
    of the others are there and eight bits hold the sum: a large factor on one tap leaves the many small weights around
    it few steps. ``conv(x) + x`` alone stays whatever it holds (joined, the outputs of four small networks lost 1.9 dB
    on average on two engines, and 5.6 at most). Graphs whose batch norms are kept for training stay too.
    """
    if graph_module.meta.get(KEEP):
        return
    while _merge_once(graph_module):
        fold_constant_affine(graph_module)


def coarse_layers(graph_module: fx.GraphModule) -> int:
    """How many layers eight bits hold worse than any sum that is merged here."""
    layers = [n for n in graph_module.graph.nodes if n.target in _LAYERS]
    kernels = [k for n in layers if (k := _layer(graph_module, n, 1)) is not None]
    return sum(rounding_db(k) < _LEAST_DB for k in kernels)


def _merge_once(graph_module: fx.GraphModule) -> bool:
    merged = False
    for root in [n for n in graph_module.graph.nodes if _is_sum(n) and not _is_inside(n)]:
        merged = _merge_sum(graph_module, root) or merged
    graph_module.graph.eliminate_dead_code()
    return merged


def _is_sum(node: Any) -> bool:
    if not isinstance(node, fx.Node) or node.op != "call_function":
        return False
    return node.target in OFFSETS and not node.kwargs and len(node.args) == 2


def _is_inside(node: fx.Node) -> bool:
    """Whether ``node`` is a part of another sum of the same shape, and nothing else reads it."""
    reader = next(iter(node.users), None)
    return len(node.users) == 1 and _is_sum(reader) and _sizes(reader) == _sizes(node)


def _sizes(node: Any) -> list[str]:
    """Shape as text: symbolic sizes are compared without asking what they are."""
    return [str(size) for size in (isinstance(node, fx.Node) and shape_of(node)) or ()]


def _terms(root: fx.Node) -> list[_Term]:
    """What ``root`` adds up, from left to right."""
    found: list[_Term] = []
    waiting: list[tuple[Any, int]] = [(root, 1)]
    while waiting:
        node, sign = waiting.pop()
        if node is root or (_is_sum(node) and _is_inside(node)):
            left, right = node.args
            waiting += [(right, -sign if node.target in SUBTRACTS else sign), (left, sign)]
        else:
            found.append(_Term(node=node, sign=sign))
    return found


def _merge_sum(graph_module: fx.GraphModule, root: fx.Node) -> bool:
    terms = _terms(root)
    layers = {t.node.target for t in terms if isinstance(t.node, fx.Node)} & _LAYERS.keys()
    if len(layers) != 1:
        return False
    rank = _LAYERS[layers.pop()]  # type: ignore[index]
    branches = [b for term in terms if (b := _branch(graph_module, term, root, rank)) is not None]
    clusters = [c for c in _clusters(branches) if _is_worth(c)]
    if not clusters:
        return False
    left = [t for t in terms if not any(b.term is t for c in clusters for b in c)]
    offset: torch.Tensor | int
    offset, left = _offsets(graph_module, left, root, rank)
    results = []
    for cluster in clusters:
        results.append(_Term(node=_one_layer(graph_module, cluster, offset), sign=1))
        offset = 0
    _write_sum(root, [*results, *left])
    return True


def _branch(graph_module: fx.GraphModule, term: _Term, root: fx.Node, rank: int) -> _Branch | None:
    node = term.node
    if not isinstance(node, fx.Node) or node.op == "get_attr" or _sizes(node) != _sizes(root):
        return None
    if node.meta["val"].dtype != root.meta["val"].dtype:
        return None
    if node.target in _LAYERS:
        found = _layer(graph_module, node, term.sign)
        if found is not None and len(node.users) == 1:
            return _Branch(term=term, source=node.args[0], kernel=found, made_by=(node,), layer=node)  # type: ignore[arg-type]
    axis = _axis(root, rank)
    if axis is None:
        return None
    channels = int(node.meta["val"].shape[axis])
    scale = torch.full((channels,), float(term.sign), dtype=torch.float64)
    shift = torch.zeros_like(scale)
    source, made_by = node, []
    # From the sum back to the source: scale * node + shift = scale' * source' + shift'.
    for step, value, operand in _affine_chain(graph_module, node):
        vector = per_channel(value, shape_of(step), axis, channels)
        if vector is None:
            break
        if step.target in FACTORS:
            scale = scale / vector if step.target in DIVIDES else scale * vector
        else:
            shift = shift + scale * (-vector if step.target in SUBTRACTS else vector)
        made_by.append(step)
        source = operand
    return _Branch(term=term, source=source, kernel=diagonal(scale, shift, rank), made_by=tuple(made_by))


def _affine_chain(graph_module: fx.GraphModule, node: fx.Node) -> Iterator[tuple[fx.Node, torch.Tensor, fx.Node]]:
    """Steps that lead to ``node``, the last first, each read by the next alone: with their constant and their input."""
    while node.target in FACTORS | OFFSETS and not node.kwargs and len(node.users) == 1:
        split = value_and_constant(graph_module, node)
        if split is None or _sizes(split[0]) != _sizes(node):
            return
        yield node, split[1], split[0]
        node = split[0]


def _axis(node: fx.Node, rank: int) -> int | None:
    """The axis of ``node`` that channels are on; None where it has no batch."""
    dims = len(shape_of(node) or ())
    if rank == 0:
        return dims - 1 if dims > 1 else None
    return 1 if dims == rank + 2 else None


def _layer(graph_module: fx.GraphModule, node: fx.Node, sign: int) -> Kernel | None:
    """The layer's kernel; None where its weights are no constants."""
    rank = _LAYERS[node.target]  # type: ignore[index]
    weight, bias = constant(graph_module, node.args[1]), None
    if len(node.args) > 2 and node.args[2] is not None:
        bias = constant(graph_module, node.args[2])
        if bias is None:
            return None
    if weight is None or node.kwargs or _axis(node, rank) is None or not weight.is_floating_point():
        return None
    given: list[Any] = list(node.args[3:]) if rank else []
    defaults: list[Any] = [[1], [0], [1], 1]
    stride, padding, dilation, groups = [*given, *defaults[len(given) :]]
    if isinstance(padding, str):
        return None
    return Kernel(
        weight=weight,
        bias=bias,
        sign=sign,
        stride=_each(stride, rank),
        padding=_each(padding, rank),
        dilation=_each(dilation, rank),
        groups=int(groups),
    )


def _each(value: Any, rank: int) -> tuple[int, ...]:
    sizes = tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)
    return sizes * rank if len(sizes) == 1 else sizes[:rank]


def _clusters(branches: Sequence[_Branch]) -> list[list[_Branch]]:
    """Branches that one layer can compute together; layers first, the largest kernel before the others."""
    clusters: list[list[_Branch]] = []
    for branch in sorted(branches, key=lambda b: (b.layer is None, -b.kernel.weight[0, 0].numel())):
        for cluster in clusters:
            if _may_join(branch, cluster) and can_add([b.kernel for b in (*cluster, branch)]):
                cluster.append(branch)
                break
        else:
            clusters.append([branch])
    return [_that_fit(c) for c in clusters if c[0].layer is not None]


def _may_join(branch: _Branch, cluster: Sequence[_Branch]) -> bool:
    first = cluster[0]
    full = branch.layer is None and first.layer is not None and _FULL in first.layer.meta
    return first.source is branch.source and not full


def _that_fit(cluster: list[_Branch]) -> list[_Branch]:
    """The cluster, or its layers alone where factors per channel would leave their weights too few of 256 steps."""
    layers = [b for b in cluster if b.layer is not None]
    if len(layers) == len(cluster) or not _is_worth(cluster):
        return cluster
    together = rounding_db(added([b.kernel for b in cluster]))
    if together >= _LEAST_DB or together >= rounding_db(added([b.kernel for b in layers])):
        return cluster
    assert layers[0].layer is not None
    layers[0].layer.meta[_FULL] = True
    return layers


def _is_worth(cluster: Sequence[_Branch]) -> bool:
    """More than one layer alone, added to itself, or beside nothing but the value that it reads."""
    different = {b.made_by for b in cluster}
    first = cluster[0].layer
    assert first is not None
    return len(different - {()}) > 1 or (() in different and bool(first.meta.get(_MERGED)))


def _offsets(
    graph_module: fx.GraphModule, terms: Sequence[_Term], root: fx.Node, rank: int
) -> tuple[torch.Tensor, list[_Term]]:
    """What numbers and constants per channel among ``terms`` add up to, and the other terms."""
    axis = _axis(root, rank)
    assert axis is not None
    channels = int(root.meta["val"].shape[axis])
    total, others = torch.zeros(channels, dtype=torch.float64), []
    for term in terms:
        value = constant(graph_module, term.node)
        if isinstance(term.node, (int, float)):
            value = torch.tensor(float(term.node))
        vector = None if value is None else per_channel(value.double(), shape_of(root), axis, channels)
        if vector is None:
            others.append(term)
        else:
            total += term.sign * vector
    return total, others


def _one_layer(graph_module: fx.GraphModule, cluster: Sequence[_Branch], offset: torch.Tensor | int) -> fx.Node:
    """Let the first branch's layer compute what all of them do, and ``offset``."""
    layer, kernel = cluster[0].layer, added([b.kernel for b in cluster])
    assert layer is not None and kernel.bias is not None
    stack = _common_stack([n for b in cluster for n in b.made_by])
    if stack:
        layer.meta["nn_module_stack"] = stack
    old = layer.args[1]
    assert isinstance(old, fx.Node)
    path = module_path(layer)
    origin = f"{path}.weight" if stack else str(old.meta.get("origin", old.target))
    dtype = attribute(graph_module, str(old.target)).dtype
    asks = any(trains(graph_module, b.layer.args[1]) for b in cluster if b.layer is not None)
    with graph_module.graph.inserting_before(layer):
        made = [
            new_buffer(graph_module, f"_merged_{layer.name}_{name}", value.to(dtype), origin)
            for name, value in (("weight", kernel.weight), ("bias", kernel.bias + offset))
        ]
    for node in made:
        node.meta["trains"] = asks
    geometry = (list(kernel.stride), list(kernel.padding), list(kernel.dilation), kernel.groups)
    layer.args = (layer.args[0], *made, *(geometry if kernel.stride else ()))
    layer.meta[_MERGED] = True
    return layer


def _common_stack(nodes: Sequence[fx.Node]) -> dict[str, tuple[str, object]]:
    """The modules that all ``nodes`` were traced in; empty where that is the model itself."""
    stacks = [list((n.meta.get("nn_module_stack") or {}).items()) for n in nodes]
    shared = []
    for level in zip(*stacks, strict=False):
        if any(key != level[0][0] for key, _ in level):
            break
        shared.append(level[0])
    return dict(shared) if len(shared) > 1 else {}


def _write_sum(root: fx.Node, terms: Sequence[_Term]) -> None:
    """Put the sum of ``terms``, the first of them positive, in the place of ``root``."""
    graph = root.graph
    total = terms[0].node
    assert isinstance(total, fx.Node)
    with graph.inserting_before(root):
        for term in terms[1:]:
            target = _aten.add.Tensor if term.sign > 0 else _aten.sub.Tensor
            total = graph.call_function(target, (total, term.node))
            total.meta.update(root.meta)
    root.replace_all_uses_with(total)
    graph.erase_node(root)
