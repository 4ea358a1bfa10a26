"""What is searched: the kinds of search arguments, and how each takes its value from a trial."""

from __future__ import annotations

import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError, nearest

Params = dict[str, Any]
"""Name in the storage -> value, of one trial."""
_PLAIN = (bool, int, float, str)
_GRID_POINTS = 5


class Arg(ABC):
    """One search argument; a subclass is frozen and knows its own keys of the task file."""

    @abstractmethod
    def suggest(self, trial: Any, name: str) -> Any:
        """Take the argument's value from an Optuna trial; what it searches is stored under ``name`` and below."""

    @abstractmethod
    def grid(self, name: str) -> Iterator[Params]:
        """Every combination that a grid search visits, as stored parameters."""

    def fixed(self, value: Any, name: str) -> Params:
        """The stored parameters of a value that a list of configurations names.

        Raises:
            RecipeError: the argument cannot take it.
        """
        raise RecipeError(f"search_args.{name}: expected {self.wants()}, got {value!r}")

    @abstractmethod
    def wants(self) -> str:
        """What a value has to be, in words."""

    def fields(self) -> set[str]:
        """Fields that the argument's own text uses."""
        return set()


@dataclass(frozen=True, kw_only=True)
class Categorical(Arg):
    """One of a list of values."""

    values: tuple[Any, ...]

    @classmethod
    def parse(cls, section: Section) -> Categorical:
        """Read ``values``."""
        values = section.values.get("values")
        if not isinstance(values, list | tuple) or not values:
            raise _missing(section, "values", "a list of values such as [0.1, 0.01]")
        if len({_label(v) for v in values}) != len(values):
            raise section.error("values", "different values")
        return cls(values=tuple(values))

    def suggest(self, trial: Any, name: str) -> Any:
        """One of the values."""
        labels = [_label(value) for value in self.values]
        return self.values[labels.index(trial.suggest_categorical(name, labels))]

    def grid(self, name: str) -> Iterator[Params]:
        """Every value, in the order of the list."""
        for value in self.values:
            yield {name: _label(value)}

    def fixed(self, value: Any, name: str) -> Params:
        """The value itself."""
        if value not in self.values:
            return super().fixed(value, name)
        return {name: _label(value)}

    def wants(self) -> str:
        """The list."""
        return f"one of {list(self.values)}"


@dataclass(frozen=True, kw_only=True)
class Real(Arg):
    """A number between ``low`` and ``high``, both included."""

    low: float
    high: float
    log: bool = False
    """True: equal ratios are equally likely."""
    num: int = _GRID_POINTS
    """Points of a grid search, equally apart (in the logarithm with ``log``)."""

    @classmethod
    def parse(cls, section: Section) -> Real:
        """Read ``low``, ``high``, ``log`` and ``num``."""
        low, high = _bounds(section, (int, float))
        log = bool(section.boolean("log"))
        if log and low <= 0:
            raise section.error("low", "a number above 0, as log is on,")
        return cls(low=low, high=high, log=log, num=section.integer("num", low=2) or cls.num)

    def suggest(self, trial: Any, name: str) -> float:
        """A number of the interval."""
        return float(trial.suggest_float(name, self.low, self.high, log=self.log))

    def grid(self, name: str) -> Iterator[Params]:
        """``num`` points from end to end."""
        for index in range(self.num):
            share = index / (self.num - 1)
            if share == 1:
                value = self.high
            elif self.log:
                value = self.low * (self.high / self.low) ** share
            else:
                value = self.low + (self.high - self.low) * share
            yield {name: value}

    def fixed(self, value: Any, name: str) -> Params:
        """The number."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return super().fixed(value, name)
        return {name: float(value)}

    def wants(self) -> str:
        """The interval."""
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, kw_only=True)
class Int(Arg):
    """A whole number between ``low`` and ``high``, both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    @classmethod
    def parse(cls, section: Section) -> Int:
        """Read ``low``, ``high``, ``log`` and ``step``."""
        low, high = _bounds(section, (int,))
        log, step = bool(section.boolean("log")), section.integer("step", low=1) or 1
        if log and low < 1:
            raise section.error("low", "an integer of at least 1, as log is on,")
        if log and step > 1:
            raise section.error("step", "no step, as log is on,")
        return cls(low=int(low), high=int(high), log=log, step=step)

    def suggest(self, trial: Any, name: str) -> int:
        """A number of the range."""
        return int(trial.suggest_int(name, self.low, self.high, step=self.step, log=self.log))

    def grid(self, name: str) -> Iterator[Params]:
        """Every number."""
        for value in range(self.low, self.high + 1, self.step):
            yield {name: value}

    def fixed(self, value: Any, name: str) -> Params:
        """The number."""
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or value not in range(self.low, self.high + 1, self.step)
        ):
            return super().fixed(value, name)
        return {name: value}

    def wants(self) -> str:
        """The range."""
        return f"an integer from {self.low} to {self.high}" + (f" in steps of {self.step}" if self.step > 1 else "")


@dataclass(frozen=True, kw_only=True)
class Option:
    """One branch of a nested argument."""

    text: str
    """What stands in the command: words with fields of ``args``."""
    args: Mapping[str, Arg]
    """Searched only where this branch is taken."""


@dataclass(frozen=True, kw_only=True)
class Nested(Arg):
    """One of several branches, each with search arguments of its own."""

    options: Mapping[str, Option]

    @classmethod
    def parse(cls, section: Section) -> Nested:
        """Read ``options``: name -> ``text`` and ``args``."""
        values = section.values.get("options")
        if not isinstance(values, Mapping) or not values:
            raise _missing(section, "options", "a dict of name -> {text, args}")
        options = {}
        for name, value in values.items():
            inner = Section.of(value or {}, section.file, f"{section.where}.options.{name}", ("text", "args"))
            args = parse_args(inner.values.get("args") or {}, section.file, f"{inner.where}.args")
            text = inner.values.get("text", str(name))
            if not isinstance(text, str):
                raise inner.error("text", "words with fields, such as '--momentum {momentum}'")
            options[str(name)] = Option(text=text, args=args)
        return cls(options=options)

    def suggest(self, trial: Any, name: str) -> dict[str, Any]:
        """``{"option": name of the branch, **its arguments}``."""
        chosen = trial.suggest_categorical(name, list(self.options))
        inner = self.options[chosen].args
        return {"option": chosen, **{key: arg.suggest(trial, f"{name}.{chosen}.{key}") for key, arg in inner.items()}}

    def grid(self, name: str) -> Iterator[Params]:
        """Every combination of every branch."""
        for chosen, option in self.options.items():
            for params in grid(option.args, f"{name}.{chosen}."):
                yield {name: chosen, **params}

    def fixed(self, value: Any, name: str) -> Params:
        """A branch's name, or ``{"option": name, **its arguments}``."""
        wanted = {"option": value} if isinstance(value, str) else value
        if not isinstance(wanted, Mapping) or wanted.get("option") not in self.options:
            return super().fixed(value, name)
        chosen = wanted["option"]
        inner = {key: item for key, item in wanted.items() if key != "option"}
        return {name: chosen, **fixed(self.options[chosen].args, inner, f"{name}.{chosen}.")}

    def wants(self) -> str:
        """The branches."""
        return f"one of the options {list(self.options)}"


@dataclass(frozen=True, kw_only=True)
class File(Arg):
    """A file that is written for each trial: a template with fields; the command gets its path."""

    template: Path
    text: str
    """What the template holds."""

    @classmethod
    def parse(cls, section: Section) -> File:
        """Read ``template``, a path beside the task file."""
        name = section.string("template")
        if name is None:
            raise _missing(section, "template", "the path of a file with {} fields")
        path = Path(name).expanduser()
        if not path.is_absolute():
            path = Path(section.file).resolve().parent / path
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(
                f"{section.file}: cannot read the template {path} of '{section.where}': {error}"
            ) from error
        return cls(template=path, text=text)

    def suggest(self, trial: Any, name: str) -> str:
        """The template's name: it is written, as a file of the trial, once all values are known."""
        return self.template.name

    def grid(self, name: str) -> Iterator[Params]:
        """One: the fields are other arguments' business."""
        yield {}

    def fixed(self, value: Any, name: str) -> Params:
        """Nothing to choose."""
        return super().fixed(value, name)

    def wants(self) -> str:
        """It takes none."""
        return "no value, as it is a file"


ARGS: dict[str, Any] = {"Categorical": Categorical, "Real": Real, "Int": Int, "Nested": Nested, "File": File}
"""Kind, as ``search_args.<name>.type`` names it -> class."""
_KEYS = {
    "Categorical": ("values",),
    "Real": ("low", "high", "log", "num"),
    "Int": ("low", "high", "log", "step"),
    "Nested": ("options",),
    "File": ("template",),
}


def parse_args(value: object, file: str, where: str = "search_args") -> dict[str, Arg]:
    """Read search arguments: a dict of name -> ``{type, ...}``; a list of values alone is Categorical.

    Raises:
        RecipeError: an unknown kind or key, a missing or impossible bound.
    """
    if not isinstance(value, Mapping):
        raise RecipeError(f"{file}: expected a dict of name -> {{type, ...}} for '{where}', got {value!r}")
    found: dict[str, Arg] = {}
    for key, item in value.items():
        name, place = str(key), f"{where}.{key}"
        if isinstance(item, list):
            item = {"type": "Categorical", "values": item}  # noqa: PLW2901
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind not in ARGS:
            hint = nearest(str(kind), ARGS) if kind else f"known: {', '.join(ARGS)}"
            raise RecipeError(f"{file}: '{place}' needs a type, got {kind or item!r}", hint=hint)
        found[name] = ARGS[kind].parse(Section.of(item, file, place, ("type", *_KEYS[kind])))
    return found


def suggest(args: Mapping[str, Arg], trial: Any) -> dict[str, Any]:
    """Take every value from an Optuna trial."""
    return {name: arg.suggest(trial, name) for name, arg in args.items()}


def grid(args: Mapping[str, Arg], prefix: str = "") -> Iterator[Params]:
    """Every combination, the last argument changing fastest."""
    for parts in itertools.product(*(list(arg.grid(f"{prefix}{name}")) for name, arg in args.items())):
        yield {key: value for part in parts for key, value in part.items()}


def fixed(args: Mapping[str, Arg], values: Mapping[str, Any], prefix: str = "") -> Params:
    """The stored parameters of one listed configuration.

    Raises:
        RecipeError: a value is missing, unknown or impossible.
    """
    wanted = {name: arg for name, arg in args.items() if not isinstance(arg, File)}
    for name in values:
        if name not in wanted:
            raise RecipeError(f"searcher.configs: no search arg '{prefix}{name}'", hint=nearest(str(name), wanted))
    missing = [name for name in wanted if name not in values]
    if missing:
        raise RecipeError(f"searcher.configs: expected a value for '{prefix}{missing[0]}' in {dict(values)}")
    return {k: v for name, arg in wanted.items() for k, v in arg.fixed(values[name], f"{prefix}{name}").items()}


def _label(value: Any) -> Any:
    """What the storage keeps of a category: the value itself where it can, else its JSON."""
    return value if value is None or isinstance(value, _PLAIN) else json.dumps(value, sort_keys=True, default=str)


def _bounds(section: Section, kinds: tuple[type, ...]) -> tuple[float, float]:
    what = "an integer" if kinds == (int,) else "a number"
    found: list[float] = []
    for key in ("low", "high"):
        value = section.values.get(key)
        if value is None:
            raise _missing(section, key, what)
        if isinstance(value, bool) or type(value) not in kinds or not math.isfinite(value):
            raise section.error(key, what)
        found.append(value)
    if found[0] >= found[1]:
        raise section.error("high", f"more than low, {found[0]:g},")
    return found[0], found[1]


def _missing(section: Section, key: str, expected: str) -> RecipeError:
    found = section.values.get(key)
    got = "nothing" if found is None else repr(found)
    return RecipeError(f"{section.file}: expected {expected} for '{section.where}.{key}', got {got}")


def leaves(value: Any, name: str) -> Sequence[tuple[str, Any]]:
    """A value flattened for tables: a branch and its arguments are ``name`` and ``name.argument``."""
    if not isinstance(value, Mapping):
        return [(name, value)]
    inner = [(f"{name}.{key}", item) for key, item in value.items() if key != "option"]
    return [(name, value.get("option")), *inner]
