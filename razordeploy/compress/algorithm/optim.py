"""One optimizer per part of an algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from torch import nn

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.errors import RecipeError, nearest


class SeparateOptimWrapperConstructor:
    """Builds ``optim_wrapper=dict(constructor='SeparateOptimWrapperConstructor', architecture=..., generator=...)``.

    Args:
        optim_wrapper_cfg: name of a submodule -> ``dict(optimizer=dict(type='SGD', lr=0.1))``.
        paramwise_cfg: not used; mmengine passes it.
    """

    def __init__(self, optim_wrapper_cfg: Mapping[str, Any], paramwise_cfg: Any = None) -> None:
        self.optim_wrapper_cfg = {key: value for key, value in optim_wrapper_cfg.items() if isinstance(value, Mapping)}

    def __call__(self, module: nn.Module) -> OptimWrapperDict:
        """The optimizers, by the name of what they train.

        Raises:
            RecipeError: the model has no such part.
        """
        inner, wrappers = unwrap(module), {}
        parts = dict(inner.named_children())
        for name, config in self.optim_wrapper_cfg.items():
            if name not in parts:
                raise RecipeError(f"optim_wrapper: the model has no part '{name}'", hint=nearest(name, parts))
            wrappers[name] = build_optim_wrapper(parts[name], dict(config))
        return OptimWrapperDict(**wrappers)
