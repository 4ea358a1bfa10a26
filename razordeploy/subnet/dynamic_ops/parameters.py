"""Any other module with parameters: they are sliced, or multiplied by zeros, around its own forward pass."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.selection import take


class DynamicParametersMixin(DynamicMixin):
    """A module whose code is not known, with masks over dimensions of its own parameters and buffers.

    Sliced, the forward pass sees narrower tensors; masked, it sees zeros. Attributes that hold widths stay as they
    are, so such a module usually runs masked.
    """

    dynamic_state: ClassVar[tuple[str, ...]] = (*DynamicMixin.dynamic_state, "tensor_masks")
    masked: bool = False
    tensor_masks: dict[tuple[str, int], MutableChannelContainer]

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Every module will do."""

    def _init_dynamic(self, static_type: type[nn.Module] | None = None) -> None:
        super()._init_dynamic(static_type)
        self.tensor_masks = {}

    def container_of(self, tensor: str, dim: int) -> MutableChannelContainer:
        """The container of dimension ``dim`` of the parameter or buffer ``tensor``; made where there is none."""
        value = getattr(self, tensor, None)
        if not isinstance(value, Tensor) or not 0 <= dim < value.dim():
            raise ModelError(f"{self.static_type.__name__} has no tensor '{tensor}' with a dimension {dim}")
        return self.tensor_masks.setdefault((tensor, dim), MutableChannelContainer(value.size(dim)))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward pass on the masked or sliced tensors."""
        changed = {name: self._current(name) for name, _ in self.tensor_masks}
        held: dict[str, tuple[dict[str, Any], Tensor]] = {}
        for name, value in changed.items():
            store: dict[str, Any] = self._parameters if name in self._parameters else self._buffers
            held[name] = (store, store.pop(name))
            # An instance attribute stands before parameters and buffers.
            self.__dict__[name] = value
        try:
            return self._plain_forward(*args, **kwargs)
        finally:
            for name, (store, original) in held.items():
                del self.__dict__[name]
                store[name] = original

    def _plain_forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _current(self, name: str) -> Tensor:
        value: Tensor = getattr(self, name)
        for (tensor, dim), container in self.tensor_masks.items():
            if tensor == name:
                mask = container.current_mask.to(value.device)
                if self.masked:
                    shape = [1] * value.dim()
                    shape[dim] = -1
                    value = value * mask.view(shape).to(value.dtype)
                else:
                    value = take(value, mask, dim)
        return value

    def _slice_into(self, static: Any) -> None:
        for name, _ in self.tensor_masks:
            original = getattr(self, name)
            value = original.detach()
            for (tensor, dim), container in self.tensor_masks.items():
                if tensor == name:
                    value = take(value, container.current_mask, dim)
            value = value.clone(memory_format=torch.contiguous_format)
            if name in static._parameters:
                static._parameters[name] = nn.Parameter(value, requires_grad=original.requires_grad)
            else:
                static._buffers[name] = value


@functools.cache
def dynamic_parameters(kind: type[nn.Module]) -> type[DynamicParametersMixin]:
    """The dynamic form of modules of type ``kind``."""

    def plain_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, *args, **kwargs)

    body = {"_plain_forward": plain_forward, "__module__": kind.__module__}
    return type(f"Dynamic{kind.__name__}", (DynamicParametersMixin, kind), body)
