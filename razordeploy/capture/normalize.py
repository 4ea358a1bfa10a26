"""Bring an exported graph into the one form that every later stage reads.

In place becomes functional, no-ops go, constants are computed, attention is written out, batch norms are folded,
parallel linear branches are merged.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import fx

from razordeploy.capture.activations import recognise_activations
from razordeploy.capture.affine import fold_constant_affine
from razordeploy.capture.attention import scale_behind_product, write_out_attention
from razordeploy.capture.batchnorm import KEEP, fold_batchnorm
from razordeploy.capture.branches import merge_parallel_layers
from razordeploy.capture.constants import fold_constants
from razordeploy.capture.fresh import fold_fresh, is_view
from razordeploy.capture.linear import products_to_linear
from razordeploy.capture.padding import circular_padding, plain_padding
from razordeploy.capture.pooling import plain_pooling

_aten = torch.ops.aten
_Pass: TypeAlias = Callable[[fx.GraphModule], None]

_NO_OPS = {
    _aten.dropout.default,
    _aten.feature_dropout.default,
    _aten.alpha_dropout.default,
    _aten.detach.default,
    _aten.alias.default,
    _aten.contiguous.default,
    _aten.clone.default,
    _aten.lift_fresh_copy.default,
    _aten.lift_fresh.default,
    _aten.detach_.default,
    _aten.dropout_.default,
}
_CHECKS = {
    _aten._assert_async.msg,
    _aten._assert_tensor_metadata.default,
    _aten.sym_constrain_range.default,
    _aten.sym_constrain_range_for_size.default,
    torch.ops.aten._assert_scalar.default,
}
_NEUTRAL: dict[object, int] = {
    _aten.add.Tensor: 0,
    _aten.add.Scalar: 0,
    _aten.sub.Tensor: 0,
    _aten.sub.Scalar: 0,
    _aten.mul.Tensor: 1,
    _aten.mul.Scalar: 1,
    _aten.div.Tensor: 1,
    _aten.div.Scalar: 1,
}
"""The number that changes nothing as the second operand."""
_JOINS = {_aten.cat.default, _aten.concat.default}
_RESHAPES = {_aten.view.default: _aten.reshape.default, _aten._unsafe_view.default: _aten.reshape.default}
_BY_RESULT = {_aten.reshape_as.default, _aten.view_as.default, _aten.squeeze.default}
_DROPOUTS = {_aten.dropout.default, _aten.feature_dropout.default, _aten.alpha_dropout.default}


def normalize(program: torch.export.ExportedProgram, *, keep_norms: bool = False) -> fx.GraphModule:
    """Return the normalised graph of ``program`` with its parameters and buffers attached.

    With ``keep_norms`` the weight's node of a layer that a batch norm was folded into remembers both in
    ``meta["folded_norm"]``.
    """
    return _run(program, [_drop_dropout, fold_fresh], _PASSES, {KEEP: keep_norms})


def plain_graph(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """Return the graph of ``program`` without writes in place, with every layer, name and argument as it was.

    Batch norms, dropout and the model's own call signature stay, so that the graph can stand in for the model.
    """
    return _run(program, [], _PLAIN_PASSES, {})


def _run(
    program: torch.export.ExportedProgram, first: Sequence[_Pass], then: Sequence[_Pass], wanted: Mapping[str, bool]
) -> fx.GraphModule:
    graph_module = program.module()
    assert isinstance(graph_module, fx.GraphModule)
    for step in first:
        step(graph_module)
    if not _functionalize(graph_module) and not _without_written(graph_module):
        # A write through a view: only torch's own functionalization follows aliases, which takes its time.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations
            graph_module = program.run_decompositions({}).module()
        assert isinstance(graph_module, fx.GraphModule)
    graph_module.meta.update(wanted)
    for step in then:
        step(graph_module)
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return graph_module


def _without_written(graph_module: fx.GraphModule) -> bool:
    """Fold masks and the like that are written piece by piece; tell whether no write through a view is left then."""
    fold_fresh(graph_module, only_written=True)
    return _functionalize(graph_module)


def _drop_dropout(graph_module: fx.GraphModule) -> None:
    """In eval mode a dropout is its input, not a copy of it: what is written into one is written into the other."""
    for node in list(graph_module.graph.nodes):
        if node.target in _DROPOUTS and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


def _functional_form(target: object) -> torch._ops.OpOverload | None:
    """The out-of-place overload of an in-place ATen operator; None when it is not in place."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name = target._schema.name.partition("::")[2]
    if not name.endswith("_") or name.endswith("__"):
        return None
    packet = getattr(_aten, name[:-1], None)
    overload = target._overloadname or "default"
    return getattr(packet, overload, None) if packet is not None else None


def _functionalize(graph_module: fx.GraphModule) -> bool:
    """Replace in-place operators; False, with nothing changed, when one of them writes through an alias."""
    nodes = list(graph_module.graph.nodes)
    order = {node: i for i, node in enumerate(nodes)}
    in_place = [
        (n, form) for n in nodes if n.op == "call_function" and (form := _functional_form(n.target)) is not None
    ]
    if not in_place:
        return True
    writers = {node for node, _ in in_place}
    roots: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        aliased = node in writers or is_view(node)
        roots[node] = roots[node.args[0]] if aliased and node.args[0] in roots else node
    aliases = [n for n in nodes if roots[n] is not n and n not in writers]
    for node in writers:
        written = node.args[0]
        while written in writers:
            written = written.args[0]
        if not isinstance(written, fx.Node) or written.op in {"placeholder", "get_attr"} or is_view(written):
            return False
        stale = (n for n in aliases if roots[n] is roots[node] and order[n] < order[node])
        if any(order[user] > order[node] for alias in stale for user in alias.users):
            return False
    for node, form in in_place:
        written = node.args[0]
        assert isinstance(written, fx.Node)
        node.target = form
        later = {user for user in written.users if order[user] > order[node]}
        written.replace_all_uses_with(node, delete_user_cb=later.__contains__)
    return True


def _drop_state(graph_module: fx.GraphModule) -> None:
    """Forget what the model writes back into its inputs and buffers: an engine keeps nothing between two calls."""
    for node in list(graph_module.graph.nodes):
        if node.target is _aten.copy_.default and node.args[0].op in {"placeholder", "get_attr"}:
            node.replace_all_uses_with(node.args[1])
            graph_module.graph.erase_node(node)


def _flatten_signature(graph_module: fx.GraphModule) -> None:
    """Take tensors and return tensors, whatever nest of dicts and lists the model's own signature has."""
    graph = graph_module.graph
    graph.set_codegen(fx.graph.CodeGen())
    # torch's check of the arguments against the nest that the model itself takes.
    graph_module._forward_pre_hooks.clear()
    graph_module._forward_pre_hooks_with_kwargs.clear()
    for node in list(graph.nodes):
        if node.op == "placeholder" and not isinstance(node.meta.get("val"), torch.Tensor) and not node.users:
            graph.erase_node(node)
    output = next(n for n in reversed(graph.nodes) if n.op == "output")
    leaves = [n for n in torch.utils._pytree.tree_leaves(output.args[0]) if isinstance(n, fx.Node)]
    output.args = (leaves[0] if len(leaves) == 1 else tuple(leaves),)


def _drop_checks(graph_module: fx.GraphModule) -> None:
    for node in list(graph_module.graph.nodes):
        is_guard = node.op == "call_module" and str(node.target).startswith("_guards")
        is_check = node.op == "call_function" and node.target in _CHECKS and not node.users
        if is_guard or is_check:
            graph_module.graph.erase_node(node)
    for name, _ in list(graph_module.named_children()):
        if name.startswith("_guards"):
            delattr(graph_module, name)


def _drop_no_ops(graph_module: fx.GraphModule) -> None:
    graph = graph_module.graph
    for node in list(graph.nodes):
        if (node.target in _NO_OPS and isinstance(node.args[0], fx.Node)) or _is_neutral(node):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif node.target in _JOINS and len(node.args[0]) == 1:  # a dense block's first concatenation
            node.replace_all_uses_with(node.args[0][0])
            graph.erase_node(node)


def _is_neutral(node: fx.Node) -> bool:
    """Tell whether ``node`` adds 0 or multiplies by 1, and keeps the type."""
    if node.target not in _NEUTRAL or len(node.args) < 2 or not isinstance(node.args[0], fx.Node):
        return False
    number, before, after = node.args[1], node.args[0].meta.get("val"), node.meta.get("val")
    if not isinstance(number, int | float) or number != _NEUTRAL[node.target]:
        return False
    return isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor) and before.dtype == after.dtype


def _views_to_reshapes(graph_module: fx.GraphModule) -> None:
    """A view asks for one memory layout; a reshape works on channels-last tensors too.

    A reshape to another value's shape, and a squeeze of whatever axes have size 1, get the sizes that the capture saw
    where at most one is unknown: they no longer read another value, and no engine squeezes a batch of one away.
    """
    for node in graph_module.graph.nodes:
        if node.target in _RESHAPES:
            node.target = _RESHAPES[node.target]
        elif node.target in _BY_RESULT:
            sizes = [int(d) if isinstance(d, int) else -1 for d in node.meta["val"].shape]
            if sizes.count(-1) <= 1 and 0 not in sizes:
                node.target, node.args = _aten.reshape.default, (node.args[0], sizes)


def _one_node_per_attribute(graph_module: fx.GraphModule) -> None:
    """Read every parameter through one node placed first, so that a shared weight is seen as shared."""
    graph = graph_module.graph
    first: dict[int, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op != "get_attr":
            continue
        tensor = _resolve(graph_module, str(node.target))
        kept = first.setdefault(id(tensor), node)
        if kept is not node:
            node.replace_all_uses_with(kept)
            graph.erase_node(node)


def _resolve(graph_module: fx.GraphModule, target: str) -> object:
    value: object = graph_module
    for part in target.split("."):
        value = getattr(value, part)
    return value


def _drop_unused(graph_module: fx.GraphModule) -> None:
    """Forget the parameters that folding replaced: they would double the memory of the model."""
    graph_module.graph.eliminate_dead_code()
    used = {str(n.target) for n in graph_module.graph.nodes if n.op == "get_attr"}
    for name, _ in [*graph_module.named_parameters(), *graph_module.named_buffers()]:
        if name not in used:
            owner, _, leaf = name.rpartition(".")
            delattr(graph_module.get_submodule(owner), leaf)


_PASSES: list[_Pass] = [
    _drop_state,
    _flatten_signature,
    _drop_checks,
    _drop_no_ops,
    _views_to_reshapes,
    _one_node_per_attribute,
    fold_constants,
    recognise_activations,
    write_out_attention,
    scale_behind_product,
    plain_pooling,
    plain_padding,
    circular_padding,
    products_to_linear,
    fold_batchnorm,
    fold_constant_affine,
    merge_parallel_layers,
    _drop_unused,
]
_PLAIN_PASSES: list[_Pass] = [_drop_checks, _views_to_reshapes, _one_node_per_attribute]
