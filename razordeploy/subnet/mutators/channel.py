"""The mutator of channel units: base of the pruners' mutators."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.channel_graph import ChannelGraph, channel_graph
from razordeploy.subnet.mutators.base import BaseMutator
from razordeploy.subnet.mutators.find_units import configured_units, predefined_units, read_unit_cfg, traced_units
from razordeploy.subnet.mutators.forward import needs_masks, runs_sliced, set_masked
from razordeploy.subnet.mutators.parse import CONFIG, PREDEFINED, example_inputs, plain_parse_cfg, read_parse_cfg
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit
from razordeploy.subnet.units.sequential import SequentialMutableChannelUnit

DEFAULT_PARSE = {"type": "ChannelAnalyzer", "demo_input": (1, 3, 224, 224), "tracer_type": "BackwardTracer"}


class ChannelMutator(BaseMutator):
    """Finds the channel units of a model, makes their layers dynamic in place, and sets their widths.

    Units go by ``module.path_(start, end)_channels`` of the first layer that makes their channels, and answer to the
    names that they would have by their other layers as well.

    Args:
        channel_unit_cfg: a unit class, its name, or ``dict(type=..., default_args={}, units={})``. ``units`` maps names
            to ``init_args``, ``choice`` and ``channels``, or is a file that does; ``config_template()`` writes it.
        parse_cfg: ``type`` is ``ChannelAnalyzer`` (or ``BackwardTracer``, ``FxTracer``: one tracer here) with a
            ``demo_input``, ``Config`` (every unit has its ``channels``), or ``Predefined``. Where all units of
            ``channel_unit_cfg`` have their channels nothing is traced, whatever the type. ``forward`` may be ``slice``
            or ``mask``; the default ``auto`` slices where the model's code allows it.
        custom_groups: groups of unit names that make one choice.
        init_cfg: as of every mutator.

    Raises:
        ModelError: an unknown key, type or unit class.
    """

    unit_type: ClassVar[type[MutableChannelUnit]] = SequentialMutableChannelUnit
    """The unit class where ``channel_unit_cfg`` names none."""

    def __init__(
        self,
        channel_unit_cfg: Mapping[str, Any] | type[MutableChannelUnit] | str | None = None,
        parse_cfg: Mapping[str, Any] | None = None,
        custom_groups: Sequence[Sequence[str]] | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.parse_cfg = dict(DEFAULT_PARSE if parse_cfg is None else parse_cfg)
        self.parse = read_parse_cfg(self.parse_cfg)
        self.unit_config = read_unit_cfg(channel_unit_cfg, self.unit_type)
        self._custom_groups = [list(group) for group in custom_groups or ()]
        self.units = nn.ModuleList()
        self._traced = _Shared(None)
        self.forward_mode = "slice"
        """``slice`` or ``mask``, once a model is prepared."""
        self.masked_because: str | None = None
        """Why the model does not run sliced; None where it does."""

    def prepare_from_supernet(self, supernet: nn.Module) -> None:
        """Find the units of ``supernet`` and make it dynamic, in place.

        Raises:
            ModelError: the model cannot be traced, or the units of the config are not its.
        """
        if len(self.units):
            raise ModelError(f"{type(self).__name__} has a supernet already", hint="make a mutator for each model")
        units = self._find_units(supernet, example_inputs(self.parse, supernet))
        inputs = example_inputs(self.parse, supernet)
        if self.parse.way != PREDEFINED:
            for unit in units:
                unit.prepare_for_pruning(supernet)
            self._choose_forward(supernet, units, inputs)
        self.units.extend(units)
        where = next(supernet.parameters(), None)
        if where is not None:
            self.units.to(where.device)
        self._group()

    def inspect(self, model: nn.Module) -> None:
        """Find the units of ``model``, which stays as it is, for a template of them.

        Raises:
            ModelError: as of ``prepare_from_supernet``.
        """
        if len(self.units):
            raise ModelError(f"{type(self).__name__} has a model already", hint="make a mutator for each model")
        self.units.extend(self._find_units(model, example_inputs(self.parse, model)))
        self._group()

    def _find_units(self, supernet: nn.Module, inputs: tuple[Tensor, ...] | None) -> list[MutableChannelUnit]:
        if self.parse.way == PREDEFINED:
            return predefined_units(supernet, self.unit_config)
        if self.parse.way == CONFIG or self.unit_config.has_all_channels:
            return configured_units(supernet, self.unit_config)
        self._traced = _Shared(self._graph_by_default(supernet) if inputs is None else channel_graph(supernet, inputs))
        return traced_units(supernet, self._traced.graph, self.unit_config)  # type: ignore[arg-type]

    def _graph_by_default(self, supernet: nn.Module) -> ChannelGraph:
        """Traced with an image of the size that mmrazor traces with where nothing is said."""
        shape = DEFAULT_PARSE["demo_input"]
        self.parse_cfg = {**self.parse_cfg, "demo_input": shape}
        self.parse = read_parse_cfg(self.parse_cfg)
        inputs = example_inputs(self.parse, supernet)
        assert inputs is not None
        try:
            return channel_graph(supernet, inputs)
        except ModelError as error:
            raise ModelError(
                f"parse_cfg has no demo_input, and the model cannot be traced with one of {shape}: {error}",
                hint="give its shape, such as demo_input=(1, 1, 28, 28)",
            ) from error

    def _choose_forward(
        self, supernet: nn.Module, units: list[MutableChannelUnit], inputs: tuple[Tensor, ...] | None
    ) -> None:
        mode, why = self.parse.forward, None
        if mode == "auto":
            why = needs_masks(units, tried=inputs is not None)
            if why is None and inputs is not None and any(unit.is_mutable for unit in units):
                why = runs_sliced(supernet, units, inputs)
            mode = "slice" if why is None else "mask"
        self.forward_mode, self.masked_because = mode, why
        set_masked(supernet, mode == "mask")

    def _group(self) -> None:
        groups: dict[str, list[Any]] = {}
        known = {unit.name: unit for unit in self.mutable_units}
        used: set[str] = set()
        for group in self._custom_groups:
            for name in group:
                if name not in known or name in used:
                    problem = "twice" if name in used else "which is no unit that can be pruned"
                    raise ModelError(f"custom_groups names '{name}', {problem}", hint=nearest(name, known))
                used.add(name)
            groups[group[0]] = [known[name] for name in group]
        groups.update({name: [unit] for name, unit in known.items() if name not in used})
        self._groups = groups

    @property
    def graph(self) -> ChannelGraph | None:
        """What the tracer found; None where nothing was traced."""
        return self._traced.graph

    @property
    def all_units(self) -> list[Any]:
        """Every unit, also those that cannot be pruned."""
        return list(self.units)

    @property
    def mutable_units(self) -> list[Any]:
        """Units whose channels may go."""
        return [unit for unit in self.all_units if unit.is_mutable]

    def unit(self, name: str) -> Any:
        """The unit called ``name``, or by the name it has from another of its layers."""
        known = self._names()
        if name not in known:
            raise ModelError(f"no channel unit is called '{name}'", hint=nearest(name, known))
        return known[name][0]

    def _names(self) -> dict[str, list[Any]]:
        names = {alias: [unit] for unit in self.all_units for alias in unit.aliases()}
        names |= {unit.name: [unit] for unit in self.all_units}
        return names | self.search_groups

    @property
    def choice_template(self) -> dict[str, Any]:
        """The current choice of each unit that can be pruned."""
        return {unit.name: unit.current_choice for unit in self.mutable_units}

    def _snapshot(self) -> Any:
        return [(unit, unit.mask.clone()) for unit in self.all_units]

    def _restore(self, snapshot: Any) -> None:
        for unit, mask in snapshot:
            unit.restore_mask(mask)

    def fix_channel_mutables(self) -> None:
        """Keep the current choices for good."""
        for unit in self.all_units:
            unit.fix_chosen()

    def config_template(
        self, only_mutable_units: bool = False, with_unit_init_args: bool = False, with_channels: bool = False
    ) -> dict[str, Any]:
        """A config of which ``MODELS.build`` makes a mutator with the same units and choices.

        Args:
            only_mutable_units: leave out units that cannot be pruned.
            with_unit_init_args: with the arguments of each unit, to edit them.
            with_channels: with the layers of each unit, so that no tracing is needed.
        """
        units = self.mutable_units if only_mutable_units else self.all_units
        return {
            "type": type(self).__name__,
            "channel_unit_cfg": {
                "type": self.unit_config.kind.__name__,
                "default_args": copy.deepcopy(dict(self.unit_config.default_args)),
                "units": {
                    unit.name: unit.config_template(with_unit_init_args or with_channels, with_channels)
                    for unit in units
                },
            },
            "parse_cfg": plain_parse_cfg(self.parse_cfg),
        }


class _Shared:
    """A graph that copies of its holder share, and pickles leave out."""

    def __init__(self, graph: ChannelGraph | None) -> None:
        self.graph = graph

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __reduce__(self) -> tuple[type[_Shared], tuple[None]]:
        return _Shared, (None,)
