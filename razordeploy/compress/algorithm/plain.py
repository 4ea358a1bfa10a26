"""Plain modules that map images to logits, called as mmengine calls its models."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn

from razordeploy.train.classifier import classification_outputs


def as_classifier(module: nn.Module, label_smoothing: float = 0.0) -> nn.Module:
    """Give ``module`` the call ``module(inputs, targets=None, mode='tensor')``, in place.

    The class is replaced rather than wrapped, so that module names and checkpoint keys stay its own. ``as_plain``
    undoes it.
    """
    original: Any = type(module)
    module.__class__ = _classifier_class(original, label_smoothing)
    return module


def as_plain(module: nn.Module) -> nn.Module:
    """Take back what ``as_classifier`` did, if anything."""
    original = getattr(type(module), "plain_class", None)
    if original is not None:
        module.__class__ = original
    return module


@functools.lru_cache
def _classifier_class(original: Any, label_smoothing: float) -> type[nn.Module]:
    def forward(self: nn.Module, inputs: Tensor, targets: Tensor | None = None, mode: str = "tensor") -> Any:
        return classification_outputs(original.forward(self, inputs), targets, mode, label_smoothing)

    def reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
        # The class is nowhere to be imported from: copies and processes make it again.
        return _restore, (original, label_smoothing), vars(self)

    attributes = {
        "forward": forward,
        "__reduce_ex__": reduce,
        "__module__": original.__module__,
        "plain_class": original,
    }
    return type(original.__name__, (original,), attributes)


def _restore(original: Any, label_smoothing: float) -> nn.Module:
    cls: Any = _classifier_class(original, label_smoothing)
    return cls.__new__(cls)
