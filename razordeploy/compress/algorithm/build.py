"""Building one entry of a recipe from the literal table that names its class."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from razordeploy.data.mm import registry_scope
from razordeploy.errors import RecipeError, nearest

SCOPES = ("mmrazor.", "razordeploy.", "gml.")
"""What recipes put before a name of ours, those of the forerunners among them."""


def split_type(config: Mapping[str, Any] | str, noun: str) -> tuple[str, dict[str, Any]]:
    """Take the name out of ``config``: (name without a scope of ours, keywords).

    Raises:
        RecipeError: neither a name nor a mapping with a ``type``.
    """
    keywords = {"type": config} if isinstance(config, str) else dict(config) if isinstance(config, Mapping) else {}
    scope = keywords.pop("_scope_", None)
    name = keywords.pop("type", None)
    if not isinstance(name, str):
        raise RecipeError(f"expected {noun} to be a dict with a 'type', got {config!r}")
    if scope is not None and f"{scope}." not in SCOPES and "." not in name:
        name = f"{scope}.{name}"
    if ":" in name:
        # The path of a factory, which may lie in this very package.
        return name, keywords
    for own in SCOPES:
        name = name.removeprefix(own)
    return name, keywords


def build(config: Mapping[str, Any] | str, table: Mapping[str, Any], noun: str) -> Any:
    """Build what ``config`` names from ``table``.

    Args:
        config: ``{"type": name, keyword: value}``, or a name alone.
        table: name -> class.
        noun: what is built, for messages.

    Raises:
        RecipeError: an unknown name or keyword (with the nearest known one), or a keyword that is missing.
    """
    name, keywords = split_type(config, noun)
    if name not in table:
        raise RecipeError(f"unknown {noun} '{name}'", hint=nearest(name, table))
    return construct(table[name], keywords, noun)


def construct(cls: Any, keywords: Mapping[str, Any], noun: str) -> Any:
    """Call ``cls`` with keywords from a recipe, once it is known that it takes them and that none is missing.

    Raises:
        RecipeError: a keyword is unknown or missing.
    """
    parameters = inspect.signature(cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    known = [k for k, p in parameters.items() if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for key in keywords:
        if key not in known and not open_ended:
            raise RecipeError(
                f"{noun} {cls.__name__} has no keyword '{key}'",
                hint=nearest(str(key), known) if known else "it takes none",
            )
    missing = [k for k in known if parameters[k].default is inspect.Parameter.empty and k not in keywords]
    if missing:
        raise RecipeError(f"{noun} {cls.__name__} needs {', '.join(missing)}")
    return cls(**keywords)


def build_foreign(name: str, keywords: Mapping[str, Any], noun: str) -> Any:
    """Build what another package of the OpenMMLab family registers, such as ``mmcls.CrossEntropyLoss``.

    Raises:
        MissingDependency: the package is not installed.
        RecipeError: it has no such name, or does not take the keywords.
    """
    # Makes the names of mmrazor known inside other packages' configs.
    importlib.import_module("razordeploy.registry")
    scope, _, short = name.partition(".")
    with registry_scope(scope):
        from mmengine.config import ConfigDict
        from mmengine.registry import MODELS

        registry = MODELS if scope == "mmengine" else MODELS.children.get(scope, MODELS)
        if registry.get(short) is None:
            close = nearest(short, registry.module_dict)
            hint = close if close.startswith("did you mean") else f"{scope} has {len(registry.module_dict)} others"
            raise RecipeError(f"unknown {noun} '{name}'", hint=hint)
        try:
            # Detectors read nested configs by attribute.
            return registry.build(ConfigDict({**keywords, "type": short}))
        except (TypeError, ValueError, KeyError, AssertionError) as error:
            raise RecipeError(f"{noun} '{name}': {type(error).__name__}: {error}") from error
