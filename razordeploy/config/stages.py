"""The ``pipeline`` section of a recipe: a literal list of stages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError, nearest

MODEL_STAGES = ("train", "search", "export")
ENGINE_STAGES = ("ptq", "qat", "convert")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "train": (),
    "search": ("workers",),
    "export": ("recalibrate", "export_channel"),
    **dict.fromkeys(ENGINE_STAGES, ("backends", "threads", "benchmark_seconds")),
}
"""Stage -> the keys that only it has."""
_SHARED = ("stage", "name", "from", "recipe", "set", "model")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_PLACE = re.compile(r"\{([A-Za-z0-9][\w.-]*)\}")
NOTHING = "nothing"
"""``from='nothing'``: a model stage that takes no other stage's model."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage; what it makes goes to a folder of its name."""

    stage: str
    """``train``, ``search``, ``export``: a model to a model; ``ptq``, ``qat``, ``convert``: a model to engines."""
    name: str
    source: str | None = None
    """Name of the stage whose model it takes; None: the recipe's own."""
    recipe: str | None = None
    """Another recipe, beside this one or shipped; None: this one."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key of the recipe -> value; ``{name}`` inside of a string is the folder of an earlier stage."""
    model: Mapping[str, Any] | None = None
    """Takes the place of the recipe's model, a distillation for instance; then no other stage's model is taken."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What only this kind of stage has."""

    @property
    def parents(self) -> tuple[str, ...]:
        """Every earlier stage that it needs."""
        found = [] if self.source is None else [self.source]
        return tuple(dict.fromkeys([*found, *places([self.set, self.model])]))


def parse_stages(value: object, file: str) -> tuple[StageConfig, ...]:
    """Read the ``pipeline`` section of the recipe ``file``.

    Raises:
        RecipeError: no list, an unknown stage or key, a name twice, or a stage that takes what comes later.
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise RecipeError(
            f"{file}: expected a list of stages for 'pipeline', got {type(value).__name__}",
            hint="pipeline=[dict(stage='train'), dict(stage='ptq')]",
        )
    stages: list[StageConfig] = []
    for index, entry in enumerate(value):
        stage = _stage(entry, file, index, stages)
        known = [other.name for other in stages]
        if stage.name in known:
            raise RecipeError(f"{file}: two stages are called '{stage.name}'", hint="give one a 'name' of its own")
        for parent in stage.parents:
            if parent not in known:
                hint = nearest(parent, known) if known else "it is the first stage"
                raise RecipeError(f"{file}: no stage '{parent}' comes before '{stage.name}'", hint=hint)
            if parent == stage.source and next(s for s in stages if s.name == parent).stage in ENGINE_STAGES:
                raise RecipeError(f"{file}: '{stage.name}' takes a model, and '{parent}' makes engines")
        stages.append(stage)
    return tuple(stages)


def _stage(entry: object, file: str, index: int, before: Sequence[StageConfig]) -> StageConfig:
    where = f"pipeline[{index}]"
    kind = entry.get("stage") if isinstance(entry, Mapping) else None
    if kind not in _OPTIONS:
        hint = nearest(str(kind), _OPTIONS)
        raise RecipeError(f"{file}: expected {where} to be a dict with a known 'stage', got {kind!r}", hint=hint)
    section = Section.of(entry, file, where, (*_SHARED, *_OPTIONS[kind]))
    name = section.string("name") or kind
    if not _NAME.fullmatch(name):
        raise section.error("name", "a name of letters, digits and '_.-'")
    changes, model = section.values.get("set") or {}, section.values.get("model")
    for key, given in (("set", changes), ("model", model)):
        if given is not None and not isinstance(given, Mapping):
            raise section.error(key, "a dict")
    source = section.string("from")
    if source is None and model is None:
        source = next((s.name for s in reversed(before) if s.stage in MODEL_STAGES), None)
    return StageConfig(
        stage=kind,
        name=name,
        source=None if source == NOTHING else source,
        recipe=section.string("recipe"),
        set={str(key): given for key, given in changes.items()},
        model=model,
        options=_options(section, _OPTIONS[kind]),
    )


def _options(section: Section, keys: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in keys:
        if section.values.get(key) is None:
            continue
        if key == "backends":
            names = section.strings(key) or ()
            found[key] = tuple(part.strip() for name in names for part in name.split(",") if part.strip())
        elif key == "benchmark_seconds":
            found[key] = section.number(key, low=0.0)
        elif key == "export_channel":
            found[key] = section.boolean(key)
        else:
            found[key] = section.integer(key, low=0)
    return found


def places(value: Any) -> list[str]:
    """Names of the stages that strings inside ``value`` refer to."""
    if isinstance(value, str):
        return _PLACE.findall(value)
    if isinstance(value, Mapping):
        return [name for item in value.values() for name in places(item)]
    if isinstance(value, list | tuple):
        return [name for item in value for name in places(item)]
    return []


def placed(value: Any, folders: Mapping[str, str]) -> Any:
    """``value`` with ``{name}`` replaced by ``folders[name]``."""
    if isinstance(value, str):
        return _PLACE.sub(lambda match: folders[match[1]], value)
    if isinstance(value, Mapping):
        return {key: placed(item, folders) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [placed(item, folders) for item in value]
    return value
