"""Several deliveries as one, and the names that a recipe may give."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from razordeploy.compress.algorithm.build import construct, split_type
from razordeploy.compress.distill.deliveries.delivery import (
    DistillDelivery,
    FunctionOutputsDelivery,
    MethodOutputsDelivery,
)
from razordeploy.errors import RecipeError, nearest

DELIVERIES: dict[str, type[DistillDelivery]] = {
    "FunctionOutputsDelivery": FunctionOutputsDelivery,
    "MethodOutputsDelivery": MethodOutputsDelivery,
}


class DistillDeliveryManager:
    """Deliveries by name; one ``with`` block and one ``override_data`` for all.

    Args:
        deliveries: name -> ``dict(type='MethodOutputs', method_path=..., max_keep_data=1)``, or a list of those;
            types with or without the suffix ``Delivery``.

    Raises:
        RecipeError: an unknown type or keyword, or a path that leads nowhere.
    """

    def __init__(self, deliveries: Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]] | None = None) -> None:
        configs = deliveries or {}
        named = dict(configs) if isinstance(configs, Mapping) else {str(i): c for i, c in enumerate(configs)}
        self.deliveries: dict[str, DistillDelivery] = {name: _build(c) for name, c in named.items()}
        self._override_data = False
        self._stack: contextlib.ExitStack | None = None

    @property
    def override_data(self) -> bool:
        """Of all deliveries."""
        return self._override_data

    @override_data.setter
    def override_data(self, override: bool) -> None:
        self._override_data = override
        for delivery in self.deliveries.values():
            delivery.override_data = override

    def __enter__(self) -> DistillDeliveryManager:
        with contextlib.ExitStack() as stack:
            for delivery in self.deliveries.values():
                stack.enter_context(delivery)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()


def _build(config: Mapping[str, Any]) -> DistillDelivery:
    name, keywords = split_type(config, "delivery")
    full = name if name.endswith("Delivery") else f"{name}Delivery"
    if full not in DELIVERIES:
        short = [known.removesuffix("Delivery") for known in DELIVERIES]
        raise RecipeError(f"unknown delivery '{name}'", hint=nearest(name.removesuffix("Delivery"), short))
    delivery: DistillDelivery = construct(DELIVERIES[full], keywords, "delivery")
    return delivery
