"""What the channels that a mutator keeps cost."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.channel_graph import channel_graph
from razordeploy.subnet.estimate import ResourceCounter, Resources
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.parse import example_inputs
from razordeploy.subnet.static import make_plain, traced_names
from razordeploy.subnet.tracer.axes import Axis, find
from razordeploy.subnet.tracer.layout import Widths


class ChoiceCosts:
    """Multiply-adds and parameters of a prepared supernet by its mutator's choices; nothing is run or copied.

    Args:
        architecture: the supernet.
        mutator: its mutator.

    Raises:
        ModelError: the model was not traced and there is no ``demo_input`` to do so now.
    """

    def __init__(self, architecture: nn.Module, mutator: ChannelMutator) -> None:
        self.mutator = mutator
        inputs = example_inputs(mutator.parse, architecture)
        plain = make_plain(copy.deepcopy(architecture))
        graph = mutator.graph
        for module in plain.modules():
            # Whoever watches the supernet does not watch the capture.
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
        if graph is None:
            if inputs is None:
                raise ModelError("parse_cfg needs a demo_input to count by", hint="such as (1, 3, 224, 224)")
            graph = channel_graph(plain, inputs)
        self.counter = ResourceCounter(graph, plain)
        self.samples = max(1, len(inputs[0])) if inputs is not None and inputs[0].dim() else 1
        """Samples of the demo input: what is counted is divided by them."""
        self.names = traced_names(graph, mutator, type(architecture).__name__)
        self.whole = self.count({})

    def __deepcopy__(self, memo: dict[int, Any]) -> ChoiceCosts:
        # What is counted on stays the same; whose channels count is the copy's mutator.
        new = copy.copy(self)
        memo[id(self)] = new
        new.mutator = copy.deepcopy(self.mutator, memo)
        return new

    def now(self) -> Resources:
        """Of what the mutator keeps now; of the whole demo input."""
        kept = {unit.name: unit.mutable_channel.activated_channels for unit in self.mutator.all_units}
        return self.count(kept)

    def count(self, channels: Mapping[str, int]) -> Resources:
        """Of ``channels`` by unit; those that are not named are whole."""
        widths = {self.names[name]: number for name, number in channels.items()}
        full = {name: self.counter.graph.units[name].channels for name in widths}
        return self.counter.count({name: number for name, number in widths.items() if number != full[name]} or None)

    def of_choices(self, choices: Mapping[str, Any]) -> Resources:
        """Of ``choices`` by search group, as the mutator takes them; the other groups as they are now."""
        kept = {unit.name: unit.mutable_channel.activated_channels for unit in self.mutator.all_units}
        for name, choice in choices.items():
            members = self.mutator.search_groups.get(name) or [self.mutator.unit(name)]
            kept |= {unit.name: unit.number_of(choice) for unit in members}
        return self.count(kept)

    def mega_macs(self, resources: Resources) -> float:
        """Millions of multiply-adds of one sample; what mmrazor and its papers call FLOPs."""
        return resources.macs / self.samples / 1e6

    def expected_mega_macs(self, channels: Mapping[str, Tensor]) -> Tensor:
        """Millions of multiply-adds of one sample at mean numbers of channels by search group, differentiable.

        The mean of a product is taken for the product of means (Guo et al. 2020, arXiv 2005.03354, equation 9), which
        is exact where no operator has channels of one unit twice; at whole numbers it is the count.
        """
        graph = self.counter.graph
        known: dict[Axis, Tensor] = {}
        for group, number in channels.items():
            for unit in self.mutator.search_groups[group]:
                known |= dict.fromkeys(graph.strands[self.names[unit.name]], number)
        widths = _MeanWidths(known)
        zero = torch.zeros((), dtype=torch.float64)
        return sum((torch.as_tensor(part.value(widths)).to(zero) for part in self.counter.macs_terms), start=zero) / (
            self.samples * 1e6
        )


class _MeanWidths(Widths):
    """Widths that are tensors, of which a cut takes its share without rounding."""

    def __init__(self, widths: Mapping[Axis, Any]) -> None:
        super().__init__({find(axis): value for axis, value in widths.items()})

    def position(self, base: Axis, cut: int) -> Any:
        """Where a cut of an interleaving goes."""
        base = find(base)
        return cut * self.size(base) / base.size
