"""Distillers from their configs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy.compress.algorithm.build import build
from razordeploy.compress.distill.distillers.configurable import ConfigurableDistiller
from razordeploy.compress.distill.distillers.table import DISTILLERS
from razordeploy.errors import RecipeError


def build_distiller(config: Any) -> ConfigurableDistiller:
    """Build a distiller from its config; ``ConfigurableDistiller`` where it names no type.

    Raises:
        RecipeError: something in it is unknown or does not fit.
    """
    if isinstance(config, ConfigurableDistiller):
        return config
    if not isinstance(config, Mapping):
        raise RecipeError(f"expected distiller as a dict, got {type(config).__name__}")
    distiller: ConfigurableDistiller = build({"type": "ConfigurableDistiller", **config}, DISTILLERS, "distiller")
    return distiller
