"""Anything that torch has, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn import functional

from razordeploy.compress.distill.connectors.base import BaseConnector
from razordeploy.errors import RecipeError, nearest


class TorchFunctionalConnector(BaseConnector):
    """Calls a function of ``torch.nn.functional``.

    Args:
        function_name: such as ``avg_pool2d``, ``interpolate`` or ``normalize``.
        func_args: keywords of it.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        function_name: str,
        func_args: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        known = [name for name in dir(functional) if not name.startswith("_") and name.islower()]
        if function_name not in known or not callable(getattr(functional, function_name)):
            raise RecipeError(
                f"TorchFunctionalConnector: torch.nn.functional has no '{function_name}'",
                hint=_nearest(function_name, known, "for example avg_pool2d"),
            )
        self.function_name = function_name
        self.func_args = dict(func_args or {})

    def forward_train(self, feature: Any) -> Any:
        """What the function returns."""
        return getattr(functional, self.function_name)(feature, **self.func_args)


class TorchNNConnector(BaseConnector):
    """Builds a module of ``torch.nn`` and calls it.

    Args:
        module_name: such as ``Linear``, ``AvgPool2d`` or ``BatchNorm2d``.
        module_args: keywords of it.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        module_name: str,
        module_args: Mapping[str, Any] | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        known = [name for name in dir(nn) if isinstance(getattr(nn, name), type)]
        found = getattr(nn, module_name, None) if module_name in known else None
        if not isinstance(found, type) or not issubclass(found, nn.Module):
            raise RecipeError(
                f"TorchNNConnector: torch.nn has no module '{module_name}'",
                hint=_nearest(module_name, known, "for example Linear"),
            )
        try:
            self.func = found(**(module_args or {}))
        except TypeError as error:
            raise RecipeError(f"TorchNNConnector: torch.nn.{module_name}: {error}") from error

    def forward_train(self, feature: Any) -> Any:
        """What the module returns."""
        return self.func(feature)


def _nearest(name: str, known: list[str], example: str) -> str:
    close = nearest(name, known)
    return close if close.startswith("did you mean") else example
