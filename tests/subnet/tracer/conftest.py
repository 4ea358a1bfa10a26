"""Two oracles that know nothing of the tracer: what it ties together may be permuted, and zeros may be removed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

from razordeploy.subnet.channel_graph import ChannelGraph, Selection, channel_graph
from razordeploy.subnet.slice_constants import patches
from razordeploy.subnet.slice_graph import sliced_graph
from razordeploy.subnet.slice_state import named_tensors, sliced_state
from razordeploy.subnet.tracer.layout import Cuts, Kept
from razordeploy.subnet.tracer.unit import PrunableUnit

TOLERANCE = 1e-9
"""Of float64 sums in another order, relative to the largest output."""


class Oracle:
    """A model in float64 with random weights and statistics, its graph, and the two checks."""

    def __init__(self, model: torch.nn.Module, inputs: Any) -> None:
        self.inputs = inputs if isinstance(inputs, tuple) else (inputs,)
        self.inputs = pytree.tree_map_only(torch.Tensor, _double, self.inputs)
        self.model = model.double().eval()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, tensor in named_tensors(self.model).items():
                if tensor.is_floating_point():
                    tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
                    if name.endswith("running_var"):
                        tensor.abs_().add_(0.5)
        self.graph: ChannelGraph = channel_graph(self.model, self.inputs)
        self.expected = self.outputs(self.model)
        assert max(t.abs().max().item() for t in self.expected) > 1e-3, "outputs too small to tell anything"

    def outputs(self, model: torch.nn.Module) -> list[torch.Tensor]:
        with torch.no_grad():
            return [t for t in pytree.tree_leaves(model(*self.inputs)) if isinstance(t, torch.Tensor)]

    def sliced(self, kept: Kept) -> torch.nn.Module:
        state = sliced_state(self.graph.trace, kept, named_tensors(self.model))
        return sliced_graph(self.model, self.graph.trace, patches(self.graph.trace, kept), state)

    def assert_same(self, found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor], what: str) -> None:
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape, what
            gap, largest = (one - other).abs().max().item(), other.abs().max().item()
            assert gap <= TOLERANCE * max(largest, 1e-3), f"{what}: differs by {gap:.2e} of {largest:.2e}"

    def permute(self, names: Iterable[str] | None = None) -> int:
        """Permute each unit alone, then all together: the model's function stays. Returns the number of units."""
        names = list(self.graph.prunable if names is None else names)
        for name in names:
            self.permute_together([name])
        self.permute_together(names)
        return len(names)

    def permute_together(self, names: Iterable[str] | None = None) -> None:
        """Permute some units, or all of them, at once."""
        names = list(self.graph.prunable if names is None else names)
        found = self.outputs(self.sliced(self._permuted(names)))
        self.assert_same(found, self.expected, f"permuting {names}")

    def _permuted(self, names: Iterable[str]) -> Kept:
        generator = torch.Generator().manual_seed(1)
        units = self.graph.units
        widths = self.graph.leaf_widths(Selection(widths={n: units[n].channels for n in names}, kept={}))

        def pick(leaf: Any, width: int, cuts: Cuts) -> torch.Tensor:
            ranges = zip(cuts, cuts[1:], strict=False)
            return torch.cat([torch.randperm(b - a, generator=generator) + a for (a, _), (b, _) in ranges])

        return Kept(widths, self.graph.parts, pick)

    def remove_zeros(self, choice: Any = 0.5, *, producers_only: bool = False, primary: bool = True) -> None:
        """Zero the channels that a choice drops, remove them: nothing changes. Units with statistics stay whole."""

        def share(unit: PrunableUnit) -> Any:
            return None if unit.statistical or unit.primary is not primary else choice

        selection = self.graph.select(share)
        assert selection.widths, "nothing to prune"
        generator = torch.Generator().manual_seed(2)
        kept = self.graph.kept(selection, lambda unit, strand: torch.rand(unit.channels, generator=generator))
        chosen = self.graph.chosen(selection, kept)
        small = self.outputs(self.sliced(kept))
        with torch.no_grad():
            before = {name: tensor.clone() for name, tensor in named_tensors(self.model).items()}
            for name, positions in chosen.kept.items():
                self._zero(self.graph.units[name], positions, producers_only=producers_only)
            masked = self.outputs(self.model)
            for name, tensor in named_tensors(self.model).items():
                tensor.copy_(before[name])
        self.assert_same(small, masked, f"removing zeros of {dict(selection.widths)}")

    def _zero(self, unit: PrunableUnit, positions: torch.Tensor, *, producers_only: bool) -> None:
        tensors = named_tensors(self.model)
        for member in unit.members:
            if producers_only and not member.is_output:
                continue
            stays = torch.zeros(unit.channels, dtype=torch.bool)
            stays[positions[member.strand]] = True
            tensor, mask = tensors[member.tensor], member.mask(stays)
            if member.group is not None:
                rows = tensor.shape[0] // member.groups
                tensor = tensor[member.group * rows : (member.group + 1) * rows]
            shape = [-1 if dim == member.dim else 1 for dim in range(tensor.dim())]
            tensor.masked_fill_(~mask.reshape(shape), 0.0)


def _double(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x


@pytest.fixture
def oracle() -> Callable[..., Oracle]:
    return Oracle


@pytest.fixture
def x() -> torch.Tensor:
    """Two images of 3 channels, 8 x 8."""
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def tokens() -> torch.Tensor:
    """Two sequences of 5 tokens of width 12."""
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(3))
