"""The observers that a recipe may name, and how one is built from a name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from razordeploy.errors import RecipeError, nearest
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.observers.entropy import EntropyObserver
from razordeploy.quantization.observers.histogram import HistogramObserver
from razordeploy.quantization.observers.lsq import LSQObserver, LSQPerChannelObserver
from razordeploy.quantization.observers.minmax import (
    MeanMinMaxObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from razordeploy.quantization.observers.mse import MSEObserver
from razordeploy.quantization.observers.passive import (
    FixedQParamsObserver,
    NoopObserver,
    PlaceholderObserver,
    RecordingObserver,
    ReuseInputObserver,
)
from razordeploy.quantization.observers.percentile import PercentileObserver

OBSERVERS: dict[str, type[Observer]] = {
    "EntropyObserver": EntropyObserver,
    "FixedQParamsObserver": FixedQParamsObserver,
    "HistogramObserver": HistogramObserver,
    "LSQObserver": LSQObserver,
    "LSQPerChannelObserver": LSQPerChannelObserver,
    "MSEObserver": MSEObserver,
    "MeanMinMaxObserver": MeanMinMaxObserver,
    "MinMaxObserver": MinMaxObserver,
    "MovingAverageMinMaxObserver": MovingAverageMinMaxObserver,
    "MovingAveragePerChannelMinMaxObserver": MovingAveragePerChannelMinMaxObserver,
    "NoopObserver": NoopObserver,
    "ObserverBase": Observer,  # type: ignore[type-abstract]
    "PerChannelMinMaxObserver": PerChannelMinMaxObserver,
    "PercentileObserver": PercentileObserver,
    "PlaceholderObserver": PlaceholderObserver,
    "RecordingObserver": RecordingObserver,
    "ReuseInputObserver": ReuseInputObserver,
    "UniformQuantizationObserverBase": Observer,  # type: ignore[type-abstract]
}

PREFIXES = ("mmrazor.", "torch.")
"""Scopes that mmrazor's recipes put before a name."""


def build_observer(config: str | Mapping[str, Any], *, ch_axis: int | None = None) -> Observer:
    """Build an observer from its name, or from ``{"type": name, keyword: value}``.

    ``ch_axis`` overrides the one of the mapping when it is not None. Raises ``RecipeError`` for an unknown name or
    keyword, naming the nearest known one.
    """
    cls, keywords = lookup(config, OBSERVERS, "observer")
    if ch_axis is not None:
        keywords["ch_axis"] = ch_axis
    observer: Observer = construct(cls, keywords)
    return observer


def lookup(config: str | Mapping[str, Any], table: Mapping[str, type], noun: str) -> tuple[type, dict[str, Any]]:
    """Split a recipe's entry into the class that its name stands for and its keywords."""
    keywords = {"type": config} if isinstance(config, str) else dict(config)
    name = keywords.pop("type", None)
    if not isinstance(name, str):
        raise RecipeError(f"expected {noun} to be a name or a mapping with a 'type', got {config!r}")
    bare = name
    for prefix in PREFIXES:
        bare = bare.removeprefix(prefix)
    if bare not in table:
        raise RecipeError(f"unknown {noun} '{name}'; {nearest(bare, table)}")
    return table[bare], keywords


def construct(cls: type, keywords: Mapping[str, Any]) -> Any:
    """Call ``cls`` with keywords from a recipe, after checking that it has them and that none is missing."""
    if inspect.isabstract(cls):
        raise RecipeError(
            "an observer base class cannot be built: it estimates nothing",
            hint="name a concrete observer such as MinMaxObserver or HistogramObserver",
        )
    parameters = {k: p for k, p in inspect.signature(cls).parameters.items() if p.kind is p.KEYWORD_ONLY}
    for key in keywords:
        if key not in parameters:
            raise RecipeError(f"{cls.__name__} has no keyword '{key}'; {nearest(str(key), parameters)}")
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in keywords]
    if missing:
        raise RecipeError(f"{cls.__name__} needs {', '.join(missing)}")
    return cls(**keywords)
