"""The ``prune`` and ``subnet`` sections of a recipe: which part of the model is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError

MODES = ("mutable", "mutator")


@dataclass(frozen=True, kw_only=True)
class SubnetConfig:
    """Widths and choices as a subnet file has them."""

    file: str
    """JSON or YAML, in one of mmrazor's formats."""
    checkpoint: str | None = None
    """Weights of the full model or of the subnet, where the recipe has no ``checkpoint``."""
    mode: str | None = None
    """``mutable`` (choices of a search space) or ``mutator`` (widths of channel units); None: by the content."""
    prefix: str = ""
    """What the model's paths begin with and the file's do not."""
    extra_prefix: str = ""
    """What the file's paths begin with and the model's do not."""

    @classmethod
    def parse(cls, value: object, file: str) -> SubnetConfig:
        """Read the ``subnet`` section of the recipe ``file``; a string is the file alone."""
        given: Any = {"file": value} if isinstance(value, str) else value
        section = Section.of(given, file, "subnet", ("file", "checkpoint", "mode", "prefix", "extra_prefix"))
        name = section.string("file")
        if name is None:
            raise RecipeError(f"{file}: 'subnet' names no file", hint="subnet='fix_subnet.yaml'")
        mode = section.string("mode")
        if mode is not None and mode not in MODES:
            raise section.error("mode", f"one of {', '.join(map(repr, MODES))}")
        return cls(
            file=name,
            checkpoint=section.string("checkpoint"),
            mode=mode,
            prefix=section.string("prefix") or "",
            extra_prefix=section.string("extra_prefix") or "",
        )


@dataclass(frozen=True, kw_only=True)
class PruneConfig:
    """Widths by a rule: the channels that matter least go."""

    choice: float | None = None
    """Share of the channels to keep in every unit, in (0, 1]; None: only ``units`` change."""
    units: Mapping[str, int | float] = field(default_factory=dict)
    """Channels or share by unit name; names come from ``razordeploy channel-units``. They override ``choice``."""
    round_to: int = 1
    """Channels are kept in multiples of so many; 8 suits int8 engines."""
    checkpoint: str | None = None
    """Weights that are pruned, where the recipe's own ``checkpoint`` is that of the pruned model."""
    of: SubnetConfig | None = None
    """The part of the model that is pruned, and its weights; None: the whole."""

    @classmethod
    def parse(cls, value: object, file: str) -> PruneConfig:
        """Read the ``prune`` section of the recipe ``file``."""
        section = Section.of(value, file, "prune", ("choice", "units", "round_to", "checkpoint", "of"))
        units = section.values.get("units")
        if units is not None and (not isinstance(units, Mapping) or not all(map(_is_width, units.values()))):
            raise section.error("units", "a dict of unit name -> number or share of channels")
        choice = section.values.get("choice")
        if choice is not None and (not _is_width(choice) or not 0 < choice <= 1):
            raise section.error("choice", "a share of the channels, above 0 and up to 1.0,")
        if choice is None and not units:
            raise RecipeError(
                f"{file}: 'prune' says no widths",
                hint="choice=0.5, or units={'name': channels} (channel-units lists them)",
            )
        return cls(
            choice=None if choice is None else float(choice),
            units={str(name): width for name, width in (units or {}).items()},
            round_to=section.integer("round_to", low=1) or 1,
            checkpoint=section.string("checkpoint"),
            of=None if section.values.get("of") is None else SubnetConfig.parse(section.values["of"], file),
        )


def _is_width(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
