"""mmengine registries of the scope ``razordeploy``; the scope ``mmrazor`` is another name for it.

A config may name any component as ``razordeploy.X``, ``mmrazor.X`` or, inside either scope, ``X``. Nothing is
registered when this module is imported: the first look-up imports ``LOCATION``, which fills the registries from the
literal tables that lie beside the classes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import mmengine.registry
from mmengine.registry import Registry

from razordeploy.errors import RecipeError, nearest

SCOPE = "razordeploy"
ALIAS = "mmrazor"
LOCATION = "razordeploy.integrations.mmrazor"


class AliasRegistry(Registry):
    """A registry of another scope that holds whatever ``target`` does."""

    def __init__(self, target: Registry, scope: str) -> None:
        self.target = target
        super().__init__(target.name, parent=target.parent, scope=scope, locations=[LOCATION])

    @property
    def module_dict(self) -> dict[str, Any]:
        """The target's."""
        return self.target.module_dict

    def get(self, key: str) -> Any:
        """Look ``key`` up in the target; the alias scope before it is taken off."""
        return self.target.get(key.removeprefix(f"{self.scope}."))

    def _register_module(self, *args: Any, **kwargs: Any) -> None:
        self.target._register_module(*args, **kwargs)


def _child(name: str) -> Registry:
    parent = getattr(mmengine.registry, name)
    child = Registry(parent.name, parent=parent, scope=SCOPE, locations=[LOCATION])
    if ALIAS not in parent.children:
        AliasRegistry(child, ALIAS)
    return child


DATASETS = _child("DATASETS")
DATA_SAMPLERS = _child("DATA_SAMPLERS")
HOOKS = _child("HOOKS")
LOOPS = _child("LOOPS")
METRICS = _child("METRICS")
MODELS = _child("MODELS")
MODEL_WRAPPERS = _child("MODEL_WRAPPERS")
OPTIMIZERS = _child("OPTIMIZERS")
OPTIM_WRAPPER_CONSTRUCTORS = _child("OPTIM_WRAPPER_CONSTRUCTORS")
TASK_UTILS = _child("TASK_UTILS")
TRANSFORMS = _child("TRANSFORMS")
VISUALIZERS = _child("VISUALIZERS")

# mmengine imports '<scope>.registry' before it looks into a scope, and warns where it cannot.
sys.modules.setdefault(f"{ALIAS}.registry", sys.modules[__name__])


def build_model(config: Mapping[str, Any], noun: str = "component") -> Any:
    """Build what ``config["type"]`` names in ``MODELS``.

    Raises:
        RecipeError: ``config`` has no type, or names something that is not registered; says the nearest name.
    """
    if not isinstance(config, Mapping) or "type" not in config:
        raise RecipeError(f"expected {noun} to be a dict with a 'type', got {config!r}")
    kind = config["type"]
    with MODELS.switch_scope_and_registry(config.get("_scope_")) as registry:
        known = not isinstance(kind, str) or registry.get(kind) is not None or MODELS.get(kind) is not None
    if not known:
        raise RecipeError(f"unknown {noun} '{kind}'; {nearest(kind.rpartition('.')[2], MODELS.module_dict)}")
    # Else the default scope of a training run would be searched, and not ours.
    return MODELS.build({"_scope_": SCOPE, **config})
