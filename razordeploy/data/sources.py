"""The recipe's ``data=dict(type=...)`` section to a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from razordeploy.data.base import SPLITS, Source, Subset
from razordeploy.data.cifar10_npz import Cifar10Npz
from razordeploy.data.digits import Digits
from razordeploy.data.image_folder import ImageFolder
from razordeploy.data.python_source import PythonSource
from razordeploy.errors import RecipeError, nearest

SOURCES: dict[str, Callable[..., Source]] = {
    "cifar10_npz": Cifar10Npz,
    "digits": Digits,
    "image_folder": ImageFolder,
}


def build_source(data: Mapping[str, Any], split: str = "test", folder: Path | None = None) -> Source:
    """Build one split (``train`` or ``test``) of the data set that ``data = dict(type=..., ...)`` names.

    Args:
        data: the section.
        split: see above.
        folder: the recipe's, in which the module of ``'pkg.mod:fn'`` may lie; None: the working directory.

    Raises:
        RecipeError: no ``type``, an unknown one, or a key the source does not take.
        DataError: the data is missing or unreadable.
    """
    config = dict(data)
    kind = config.pop("type", None)
    if not isinstance(kind, str):
        raise RecipeError(
            f"data: expected dict(type='digits'), got type={kind!r}",
            hint=f"known types: {', '.join(SOURCES)}, 'pkg.mod:fn'",
        )
    if ":" in kind:
        return PythonSource(kind, config, split, folder)
    if kind not in SOURCES:
        raise RecipeError(f"data: unknown type {kind!r}", hint=f"{nearest(kind, SOURCES)} or 'pkg.mod:fn'")
    samples = _samples(config.pop("samples", None), split)
    parameters = inspect.signature(SOURCES[kind]).parameters
    known = [name for name in parameters if name != "split"]
    for key in config:
        if key not in known:
            hint = nearest(key, [*known, "samples"])
            raise RecipeError(f"data: {kind} takes no key {key!r}", hint=hint)
    for name in known:
        if parameters[name].default is inspect.Parameter.empty and name not in config:
            raise RecipeError(f"data: {kind} needs the key {name!r}", hint=f"data=dict(type={kind!r}, {name}=...)")
    source = SOURCES[kind](split=split, **config)
    return source if samples is None or samples >= len(source) else Subset(source, samples)


def _samples(given: Any, split: str) -> int | None:
    """Samples of a split; None: all."""
    by_split = given if isinstance(given, Mapping) else dict.fromkeys(SPLITS, given)
    for name, count in by_split.items():
        if name not in SPLITS:
            raise RecipeError(f"data.samples: unknown split {name!r}", hint=nearest(str(name), SPLITS))
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise RecipeError(f"data.samples: expected a number of at least 1, got {count!r}")
    found: int | None = by_split.get(split)
    return found
