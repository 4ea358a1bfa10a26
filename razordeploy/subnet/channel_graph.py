"""The channel graph of a model: its units, and what a choice of widths means for every tensor."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch

from razordeploy.capture.export import export_program
from razordeploy.capture.normalize import plain_graph
from razordeploy.errors import UsageError
from razordeploy.subnet.tracer.axes import Axis, find, is_frozen, leaves
from razordeploy.subnet.tracer.layout import Cuts, Kept, Widths, cuts_of_leaves, parts_of
from razordeploy.subnet.tracer.trace import Trace, trace
from razordeploy.subnet.tracer.unit import PrunableUnit
from razordeploy.subnet.tracer.units import build_units

Width: TypeAlias = "int | float"
"""Elements kept, or (float) the share of them."""
Choice: TypeAlias = "Width | Mapping[str, Any] | Callable[[PrunableUnit], Any]"
"""One width for all primary units, a width or kept positions by unit name, or a function of the unit."""
Importance: TypeAlias = Callable[[PrunableUnit, int], torch.Tensor]
"""``(unit, strand) -> (channels,)``: the elements with the highest values stay."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Widths of some units, and where the caller chose them, the elements that stay."""

    widths: Mapping[str, int]
    """Elements kept, by unit; a unit that is not named keeps all."""
    kept: Mapping[str, torch.Tensor]
    """Positions that stay, int64 ``(strands, width)``, for the units whose positions the caller chose."""


class ChannelGraph:
    """Units of one model, captured once; needs neither the model nor a forward pass to answer."""

    def __init__(self, traced: Trace, *, dynamic_batch: bool = False) -> None:
        self.trace = traced
        self.dynamic_batch = dynamic_batch
        """True when the graph takes any batch size."""
        built = build_units(traced)
        self.units: dict[str, PrunableUnit] = {name: unit for name, (unit, _) in built.items()}
        """Every unit by name, in the order of execution; those that cannot be pruned carry their reason."""
        self.strands: dict[str, tuple[Axis, ...]] = {name: strands for name, (_, strands) in built.items()}
        """Leaf axis of every strand of every unit."""
        self.parts = parts_of(traced.all_axes())
        """Parts of interleavings, which tie the choice of elements to the order of channels."""
        self._steps: dict[tuple[str, int], int] = {}
        self._shuffled = {leaf for part in self.parts for leaf in leaves(part)}

    @property
    def prunable(self) -> dict[str, PrunableUnit]:
        """Units that may be given a choice."""
        return {name: unit for name, unit in self.units.items() if unit.prunable}

    @property
    def fixed(self) -> dict[str, str]:
        """Parameters and buffers of which no dimension can shrink, by name, with the reason of the largest one."""
        found = {}
        for name, dims in self.trace.state.items():
            if all(is_frozen(axis) for axis in dims):
                largest = max(dims, key=lambda axis: find(axis).size, default=None)
                reasons = (part.reason for part in leaves(largest)) if largest is not None else ()
                found[name] = next((reason for reason in reasons if reason), "it is a single value")
        return found

    def select(self, choice: Choice, *, round_to: int = 1) -> Selection:
        """Resolve ``choice`` to a width per unit.

        One share applies to every primary unit, or, where only that comes out even, to what it multiplies with; a
        mapping names units. A share becomes the nearest possible width, the wider of two, a multiple of ``round_to``
        channels.

        Raises:
            UsageError: unknown unit, width of zero, over the unit's, or not a multiple of what ``round_to`` asks for.
        """
        if round_to < 1:
            raise UsageError(f"round_to: expected a positive number of channels, got {round_to}")
        if isinstance(choice, Mapping):
            wanted = {name: value for name, value in choice.items() if self._known(name) is not None}
        elif callable(choice):
            found = {name: choice(unit) for name, unit in self.prunable.items()}
            wanted = {name: value for name, value in found.items() if value is not None}
        else:
            if not isinstance(choice, float) or not 0 < choice <= 1:
                raise UsageError(
                    f"choice: expected a share of the channels, above 0 and up to 1.0, got {choice!r}",
                    hint="numbers of channels go by unit name, see channel_units",
                )
            wanted = dict.fromkeys(self._shared_out(choice, round_to), choice)
        widths, kept = {}, {}
        for name, value in wanted.items():
            unit = self.units[name]
            if isinstance(value, (torch.Tensor, list, tuple)):
                kept[name] = _positions(unit, value)
                widths[name] = kept[name].shape[1]
            else:
                widths[name] = self._width(unit, value, round_to)
        return Selection(widths=widths, kept=kept)

    def _shared_out(self, share: float, round_to: int) -> Iterator[str]:
        """Units that one share for all goes to: the primary ones.

        Where a share of them is no whole number (half of 3 heads) and one of their cofactors is (half of each head's
        width), the cofactors.
        """

        def exact(unit: PrunableUnit) -> bool:
            wanted = share * unit.channels
            return abs(self._nearest(unit, wanted, round_to) - wanted) < 1e-6

        for name, unit in self.prunable.items():
            others = [self.units[other] for other in unit.cofactors]
            if not unit.primary:
                continue
            if others and not exact(unit) and all(exact(o) and self._only_primary(o, name) for o in others):
                yield from unit.cofactors
            else:
                yield name

    def _only_primary(self, unit: PrunableUnit, name: str) -> bool:
        return all(other == name or not self.units[other].primary for other in unit.cofactors)

    def _known(self, name: str) -> PrunableUnit:
        unit = self.units.get(name)
        if unit is None:
            near = difflib.get_close_matches(str(name), list(self.prunable), n=1, cutoff=0.0)
            raise UsageError(f"no unit is called '{name}'", hint=f"did you mean '{near[0]}'?" if near else None)
        if unit.reason is not None:
            raise UsageError(f"'{name}' cannot be pruned: {unit.reason}")
        return unit

    def choices(self, name: str, round_to: int = 1) -> list[int]:
        """Widths that a unit may have, increasing; its own is always one of them.

        They are the multiples of what ``round_to`` asks for, without those at which a channel shuffle would have to
        take one channel for another.
        """
        unit, step = self.units[name], self._step(name, round_to)
        return [n for n in [*range(step, unit.channels, step), unit.channels] if self._realisable(name, n)]

    def _realisable(self, name: str, width: int) -> bool:
        if not self.cut_by_shuffles(name) or width == self.units[name].channels:
            return True
        try:
            cuts_of_leaves(self.parts, Widths(dict.fromkeys(self.strands[name], width)))
        except UsageError:
            return False
        return True

    def cut_by_shuffles(self, name: str) -> bool:
        """Tell whether the order of a unit's channels decides where they go, so that not any may be dropped."""
        return not self._shuffled.isdisjoint(self.strands[name])

    def _width(self, unit: PrunableUnit, value: Any, round_to: int) -> int:
        """Check a number, or turn a share into the nearest width that is possible, the wider of two."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            found = type(value).__name__
            raise UsageError(f"'{unit.name}': expected a number of channels, a share or kept positions, got {found}")
        if isinstance(value, int):
            if not 1 <= value <= unit.channels:
                raise UsageError(f"'{unit.name}': expected 1 to {unit.channels} channels, got {value}")
            near = self._nearest(unit, value, round_to)
            if near != value:
                asked = f" with round_to={round_to}" if round_to > 1 else ""
                found = f"{value} of {unit.channels} is no possible width{asked}"
                raise UsageError(f"'{unit.name}': {found}", hint=f"{near} is")
            return value
        if not 0 < value <= 1:
            raise UsageError(f"'{unit.name}': expected a share above 0 and up to 1.0, got {value}")
        return self._nearest(unit, value * unit.channels, round_to)

    def _nearest(self, unit: PrunableUnit, wanted: float, round_to: int) -> int:
        """The possible width that is nearest to the wanted one, the wider of two."""
        if self.cut_by_shuffles(unit.name):
            possible = self.choices(unit.name, round_to)
        else:
            step = self._step(unit.name, round_to)
            below = max(step, int(wanted // step) * step)
            possible = [n for n in (below, below + step) if n <= unit.channels] + [unit.channels]
        return min(possible, key=lambda n: (abs(n - wanted), -n))

    def _step(self, name: str, round_to: int) -> int:
        known = self._steps.get((name, round_to))
        if known is None:
            unit = self.units[name]
            known = self._steps[name, round_to] = min(unit.step(round_to), unit.channels) if round_to > 1 else 1
        return known

    def widths(self, selection: Selection) -> Widths:
        """Sizes of every dimension under ``selection``."""
        return Widths(self.leaf_widths(selection))

    def kept(self, selection: Selection, importance: Importance) -> Kept:
        """Positions of every dimension that stay under ``selection``, the most important ones."""
        strands = {leaf: (name, at) for name in selection.widths for at, leaf in enumerate(self.strands[name])}

        def pick(leaf: Axis, width: int, cuts: Cuts) -> torch.Tensor:
            name, at = strands.get(leaf, ("", 0))
            if name in selection.kept:
                return _checked(selection.kept[name][at], cuts, name)
            if not name or width == leaf.size:
                return torch.arange(leaf.size)
            scores = importance(self.units[name], at)
            if scores.shape != (leaf.size,):
                found = tuple(scores.shape)
                raise UsageError(f"importance of '{name}': expected ({leaf.size},) values, got shape {found}")
            return _best(scores, cuts)

        return Kept(self.leaf_widths(selection), self.parts, pick)

    def chosen(self, selection: Selection, kept: Kept) -> Selection:
        """``selection`` with the positions that ``kept`` settled on."""
        positions = {n: torch.stack([kept.index(leaf) for leaf in self.strands[n]]) for n in selection.widths}
        return Selection(widths=selection.widths, kept=positions)

    def leaf_widths(self, selection: Selection) -> dict[Axis, int]:
        """Width of every leaf that ``selection`` speaks of."""
        return {leaf: width for name, width in selection.widths.items() for leaf in self.strands[name]}


def _positions(unit: PrunableUnit, value: Any) -> torch.Tensor:
    """Kept positions as ``(strands, width)``, from positions or a mask, for all strands or each."""
    given = torch.as_tensor(value)
    if not given.numel() or given.is_floating_point():
        raise UsageError(f"'{unit.name}': expected at least one position, or a mask, got {value!r}")
    if given.dtype == torch.bool:
        rows = [row.nonzero()[:, 0] for row in given.reshape(-1, given.shape[-1])]
        if given.shape[-1] != unit.channels or len({len(row) for row in rows}) != 1:
            raise UsageError(f"'{unit.name}': expected a mask of {unit.channels} channels, got {tuple(given.shape)}")
        given = torch.stack(rows)
    rows_given = given.to(torch.int64).reshape(-1, given.shape[-1] if given.dim() else 1)
    if len(rows_given) not in {1, unit.strands} or not rows_given.shape[1]:
        raise UsageError(f"'{unit.name}': expected positions for 1 or {unit.strands} strands, got {tuple(given.shape)}")
    for row in rows_given:
        if row.min() < 0 or row.max() >= unit.channels or len(row.unique()) != len(row):
            raise UsageError(f"'{unit.name}': expected different positions from 0 to {unit.channels - 1}")
    return rows_given.expand(unit.strands, -1)


def _best(scores: torch.Tensor, cuts: Cuts) -> torch.Tensor:
    """The highest-scoring elements, in their own order, as many before each cut as it asks for."""
    picked = []
    for (start, new), (stop, next_new) in zip(cuts, cuts[1:], strict=False):
        best = scores[start:stop].argsort(descending=True, stable=True)[: next_new - new]
        picked.append(best.sort().values + start)
    return torch.cat(picked)


def _checked(positions: torch.Tensor, cuts: Cuts, name: str) -> torch.Tensor:
    for (start, new), (stop, next_new) in zip(cuts, cuts[1:], strict=False):
        inside = positions[new:next_new]
        if ((inside < start) | (inside >= stop)).any():
            raise UsageError(
                f"'{name}': a channel shuffle needs exactly {next_new - new} kept channels of {start} to {stop - 1}, "
                f"got {positions.tolist()}"
            )
    return positions


def channel_graph(
    model: torch.nn.Module,
    example_inputs: Any,
    example_kwargs: dict[str, Any] | None = None,
    *,
    dynamic_batch: bool = False,
) -> ChannelGraph:
    """Capture ``model`` and find its units.

    Raises:
        ModelError: the model cannot be captured.
    """
    inputs = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    with _plain_attention():
        exported = export_program(model, inputs, example_kwargs, dynamic_batch=dynamic_batch)
    traced = trace(plain_graph(exported.program), state_names(model))
    return ChannelGraph(traced, dynamic_batch=exported.dynamic_batch)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep ``nn.MultiheadAttention`` off its fused kernel, which hides its layers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def state_names(model: torch.nn.Module) -> list[str]:
    """Every name of every parameter and buffer."""
    parameters = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    return parameters + [name for name, _ in model.named_buffers(remove_duplicate=False)]


def channel_units(
    model: torch.nn.Module, example_inputs: Any, *, example_kwargs: dict[str, Any] | None = None
) -> dict[str, PrunableUnit]:
    """Prunable units of ``model`` by name, in the order of execution, each with its channels and choices.

    Args:
        model: any ``nn.Module``; left as it was.
        example_inputs: a tuple of inputs, or one tensor, for the capture.
        example_kwargs: keyword arguments of the call.

    Raises:
        ModelError: the model cannot be captured.
    """
    graph = channel_graph(model, example_inputs, example_kwargs)
    return {name: replace(unit, choices=tuple(graph.choices(name))) for name, unit in graph.prunable.items()}
