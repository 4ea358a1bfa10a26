"""Cut a model down to the channels that stay: a plain, static module with the same call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.utils import _pytree as pytree

from razordeploy.errors import ModelError
from razordeploy.subnet.channel_graph import ChannelGraph, Choice, Importance, Selection, channel_graph
from razordeploy.subnet.importance import l1_importance
from razordeploy.subnet.slice_constants import patches
from razordeploy.subnet.slice_graph import sliced_graph
from razordeploy.subnet.slice_module import sliced_modules
from razordeploy.subnet.slice_state import named_tensors, sliced_state

_log = logging.getLogger(__name__)
_MUCH_FIXED = 0.1
"""Share of the parameters from which it is said which of them cannot be pruned."""
_Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
_TOLERANCE = 1e-4
"""Largest difference between the two forms, relative to the largest output: float32 sums in another order."""


@dataclass(frozen=True, kw_only=True)
class Sliced:
    """A sliced model, and how it was made."""

    module: torch.nn.Module
    """Static, with the call signature, the parameter names, the modes and the types of the original."""
    form: str
    """``module``: the original's own classes, resized, seen to compute what the captured graph computes.
    ``graph``: the captured graph with its widths replaced, because the original's code fixes a width."""
    why: str | None
    """Why it is a graph; None for a module."""
    selection: Selection
    """Widths of the units that were pruned."""


def prune(
    model: torch.nn.Module,
    *,
    example_inputs: Any,
    choice: Choice = 0.5,
    example_kwargs: dict[str, Any] | None = None,
    importance: Importance | None = None,
    round_to: int = 1,
) -> torch.nn.Module:
    """Return a copy of ``model`` without the channels that matter least: static, sliced, with the same call.

    The result has the original's own classes where their code allows other widths, and is the captured graph with the
    same parameter names where it does not (see :class:`Sliced`; a log line says which).

    Args:
        model: any ``nn.Module``; left as it was.
        example_inputs: a tuple of inputs, or one tensor.
        choice: the share of channels to keep in every unit (0.5), or ``{unit name: number | share | kept positions |
            mask}``, or a function from a unit to one of these or None. Names come from :func:`channel_units`.
        example_kwargs: keyword arguments of the call.
        importance: ``(unit, strand) -> (channels,)``, highest stay; None ranks by the L1 norm of the filters.
        round_to: keep multiples of so many channels (8 suits int8 engines).

    Raises:
        UsageError: a choice that names no unit, is zero, too wide or not divisible.
        ModelError: the model cannot be captured, or nothing in it can be pruned.
    """
    graph = channel_graph(model, example_inputs, example_kwargs)
    result = slice_model(
        model,
        graph,
        choice,
        example_inputs=example_inputs,
        example_kwargs=example_kwargs,
        importance=importance,
        round_to=round_to,
    )
    _log.info("pruned %d units of %s as a %s%s", *_words(model, result))
    return result.module


def _words(model: torch.nn.Module, result: Sliced) -> tuple[int, str, str, str]:
    return len(result.selection.widths), type(model).__name__, result.form, f": {result.why}" if result.why else ""


def slice_model(
    model: torch.nn.Module,
    graph: ChannelGraph,
    choice: Choice,
    *,
    example_inputs: Any,
    example_kwargs: dict[str, Any] | None = None,
    importance: Importance | None = None,
    round_to: int = 1,
) -> Sliced:
    """Slice ``model``, whose units are in ``graph``; arguments and errors as :func:`prune`."""
    if not graph.prunable:
        reasons = "; ".join(f"{unit.name}: {unit.reason}" for unit in list(graph.units.values())[:3])
        raise ModelError(f"nothing in {type(model).__name__} can be pruned ({reasons or 'it has no channels'})")
    selection = graph.select(choice, round_to=round_to)
    _say_fixed(model, graph)
    args = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    ranking = importance or l1_importance(named_tensors(model))
    return _sliced(model, graph, selection, ranking, (args, dict(example_kwargs or {})))


def _say_fixed(model: torch.nn.Module, graph: ChannelGraph) -> None:
    """Log the largest parameters that no choice shrinks, where they are much of the model."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    reasons = {name: reason for name, reason in graph.fixed.items() if name in sizes}
    total, fixed = sum(sizes.values()), sum(sizes[name] for name in reasons)
    if total and fixed > _MUCH_FIXED * total:
        largest = sorted(reasons, key=lambda name: -sizes[name])[:3]
        named = ", ".join(f"{name} ({sizes[name] / total:.0%}: {reasons[name]})" for name in largest)
        _log.warning("%.0f %% of the parameters stay at any choice: %s", 100 * fixed / total, named)


def _sliced(
    model: torch.nn.Module, graph: ChannelGraph, selection: Selection, importance: Importance, call: _Call
) -> Sliced:
    kept = graph.kept(selection, importance)
    state = sliced_state(graph.trace, kept, named_tensors(model))
    changes = patches(graph.trace, kept)
    as_graph = sliced_graph(model, graph.trace, changes, state)
    reasons = []
    for module in sliced_modules(model, changes, state):
        why = _difference(module, as_graph, call)
        if why is None:
            return Sliced(module=module, form="module", why=None, selection=selection)
        reasons.append(why)
    dynamic = channel_graph(model, *call, dynamic_batch=True)
    if dynamic.dynamic_batch and dynamic.units == graph.units:
        kept = dynamic.kept(graph.chosen(selection, kept), importance)
        as_graph = sliced_graph(model, dynamic.trace, patches(dynamic.trace, kept), state)
    return Sliced(module=as_graph, form="graph", why=reasons[0], selection=selection)


def _difference(module: torch.nn.Module, graph: torch.nn.Module, call: _Call) -> str | None:
    """Why ``module`` cannot stand for ``graph``: it fails, or computes something else; None when it can.

    Both share their tensors, which are perturbed for the comparison: trained models hold layers that are zero or close
    to it, behind which a difference would not show.
    """
    shared = named_tensors(module)
    # Constants of the code are the graph's alone.
    tensors = {name: tensor for name, tensor in named_tensors(graph).items() if name in shared}
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    modes = [(part, part.training) for part in (*module.modules(), *graph.modules())]
    module.eval()
    graph.eval()
    try:
        _perturb(tensors)
        expected = _outputs(graph, call)
        if not all(t.isfinite().all() for t in expected if t.is_floating_point()):
            _restore(tensors, before)
            expected = _outputs(graph, call)
        return _first_difference(module, expected, call)
    finally:
        _restore(tensors, before)
        for part, mode in modes:
            part.training = mode


def _restore(tensors: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(before[name])


def _perturb(tensors: Mapping[str, torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                noise = torch.randn(tensor.shape, generator=generator).to(tensor)
                tensor.mul_(1 + 0.2 * noise).add_(0.02 * noise.flip(0) if noise.dim() else 0.02 * noise)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.1)


def _outputs(module: torch.nn.Module, call: _Call) -> list[torch.Tensor]:
    args, kwargs = call
    with torch.no_grad():
        result = module(*args, **kwargs)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def _first_difference(module: torch.nn.Module, expected: list[torch.Tensor], call: _Call) -> str | None:
    try:
        found = _outputs(module, call)
    except Exception as error:  # the model's own code, which may raise anything
        line = next(iter(str(error).splitlines()), "no message")
        return f"its code fixes a width ({type(error).__name__}: {line})"
    if [t.shape for t in found] != [t.shape for t in expected]:
        return f"its code gives shapes {[tuple(t.shape) for t in found]}, not {[tuple(t.shape) for t in expected]}"
    for one, other in zip(found, expected, strict=True):
        if not one.is_floating_point() or not one.numel():
            continue
        largest, gap = other.abs().max().item(), (one - other).abs().max().item()
        if not gap <= _TOLERANCE * largest:
            return f"its code computes something else at other widths (difference {gap:.2e} of {largest:.2e})"
    return None
