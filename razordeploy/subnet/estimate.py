"""What a choice of widths costs, counted on the channel graph: no model is copied, none is run."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from razordeploy.errors import UsageError, nearest
from razordeploy.subnet.channel_graph import ChannelGraph, Choice, Selection, channel_graph
from razordeploy.subnet.memory import peak_bytes, produced_elements
from razordeploy.subnet.slice import slice_model
from razordeploy.subnet.tracer.layout import Widths
from razordeploy.subnet.tracer.macs import Term, multiply_accumulates, term

Cost = Callable[[torch.nn.Module, tuple[Any, ...]], float]
"""``(model, example inputs) -> milliseconds``, measured on an engine."""

_SCALES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Costs of one forward of the example inputs, and the size of the model."""

    macs: int
    """Multiply-accumulates of convolutions, linear layers and products; what mmrazor and many papers call FLOPs."""
    flops: int
    """Floating-point operations of the same: twice the multiply-accumulates."""
    params: int
    """Elements of the parameters; a shared one counts once."""
    activations: int
    """Elements that convolutions, linear layers and products put out."""
    peak_activation_bytes: int
    """Most memory that live intermediate tensors take at one time, inputs included, operators not fused."""


class ResourceCounter:
    """Counts one channel graph; thousands of choices a second for small models, hundreds for large ones."""

    def __init__(self, graph: ChannelGraph, model: torch.nn.Module) -> None:
        self.graph = graph
        self.macs_terms = list(multiply_accumulates(graph.trace))
        self._params = list(_parameter_terms(graph, model))

    def count(self, choice: Choice | Selection | None = None) -> Resources:
        """Resources under ``choice``; None is the whole model.

        Raises:
            UsageError: as :meth:`ChannelGraph.select`.
        """
        widths = self._widths(choice)
        macs = _sum(self.macs_terms, widths)
        return Resources(
            macs=macs,
            flops=2 * macs,
            params=_sum(self._params, widths),
            activations=produced_elements(self.graph.trace, widths),
            peak_activation_bytes=peak_bytes(self.graph.trace, widths),
        )

    def flops_and_params(self, choice: Choice | Selection | None = None) -> tuple[int, int]:
        """The two that a search asks for most."""
        widths = self._widths(choice)
        return 2 * _sum(self.macs_terms, widths), _sum(self._params, widths)

    def macs_by_module(self, choice: Choice | Selection | None = None) -> dict[str, int]:
        """Multiply-accumulates by the path of the module that does them."""
        widths = self._widths(choice)
        found: dict[str, int] = {}
        for part in self.macs_terms:
            found[part.module] = found.get(part.module, 0) + part.value(widths)
        return found

    def _widths(self, choice: Choice | Selection | None) -> Widths:
        if choice is None:
            return Widths({})
        return self.graph.widths(choice if isinstance(choice, Selection) else self.graph.select(choice))


def _sum(terms: list[Term], widths: Widths) -> int:
    return sum(part.value(widths) for part in terms)


def _parameter_terms(graph: ChannelGraph, model: torch.nn.Module) -> Any:
    seen: set[int] = set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in graph.trace.state and id(parameter) not in seen:
            seen.add(id(parameter))
            dims, grouped = graph.trace.state[name], graph.trace.grouped.get(name)
            yield term([dims[0], grouped.own[0], *dims[2:]] if grouped is not None else dims)
    for parameter in model.parameters():
        if id(parameter) not in seen:
            yield Term(axes=(), constant=parameter.numel(), module="")


class ResourceEstimator:
    """FLOPs, parameters, activations and, through ``cost``, the latency of an engine, in one call.

    Args:
        input_shape: of the one example input, batch first; ignored where ``example_inputs`` is given.
        units: scale of each number: ``""``, ``K``, ``M``, ``G`` or ``T``; memory in bytes of that scale, latency in ms.
        as_strings: return ``"4.1 G"`` for 4.1.
        cost: measures the latency of a sliced model, or several of them by name (``latency@openvino``, as
            ``razordeploy.latency.engine_latency`` makes them); None leaves it out.
        example_inputs: a tuple of inputs.

    Raises:
        UsageError: an unknown quantity or unit.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...] = (1, 3, 224, 224),
        units: Mapping[str, str] | None = None,
        as_strings: bool = False,
        *,
        cost: Cost | Mapping[str, Cost] | None = None,
        example_inputs: tuple[Any, ...] | None = None,
    ) -> None:
        self.units = {"flops": "M", "macs": "M", "params": "M", "activations": "M", "memory": "M", **dict(units or {})}
        self.units.pop("latency", None)
        for quantity, unit in self.units.items():
            if quantity not in _QUANTITIES:
                raise UsageError(f"units: nothing is called '{quantity}'", hint=nearest(quantity, _QUANTITIES))
            if unit not in _SCALES:
                raise UsageError(f"units.{quantity}: expected one of {', '.join(map(repr, _SCALES))}, got '{unit}'")
        self.as_strings = as_strings
        self.costs: dict[str, Cost] = (
            dict(cost) if isinstance(cost, Mapping) else {} if cost is None else {"latency": cost}
        )
        self.example_inputs = example_inputs or (torch.zeros(input_shape),)
        self._counters: weakref.WeakKeyDictionary[torch.nn.Module, ResourceCounter] = weakref.WeakKeyDictionary()

    def counter(self, model: torch.nn.Module) -> ResourceCounter:
        """The counter of ``model``, which is captured on the first call only."""
        found = self._counters.get(model)
        if found is None:
            found = self._counters[model] = ResourceCounter(channel_graph(model, self.example_inputs), model)
        return found

    def estimate(self, model: torch.nn.Module, choice: Choice | None = None) -> dict[str, float | str]:
        """``flops``, ``macs``, ``params``, ``activations``, ``memory`` and, with ``cost``, latencies of a choice.

        Args:
            model: the whole model; captured once.
            choice: as :func:`razordeploy.prune`; None is the model as it is.
        """
        counter = self.counter(model)
        counted = counter.count(choice)
        result: dict[str, float | str] = {}
        for quantity, field in _QUANTITIES.items():
            unit = self.units[quantity]
            value = getattr(counted, field) / _SCALES[unit]
            result[quantity] = f"{value:.4g} {unit}".rstrip() if self.as_strings else value
        if self.costs:
            small = model
            if choice is not None:
                small = slice_model(model, counter.graph, choice, example_inputs=self.example_inputs).module
            for name, cost in self.costs.items():
                latency = cost(small, self.example_inputs)
                result[name] = f"{latency:.4g} ms" if self.as_strings else latency
        return result


_QUANTITIES = {
    "flops": "flops",
    "macs": "macs",
    "params": "params",
    "activations": "activations",
    "memory": "peak_activation_bytes",
}
