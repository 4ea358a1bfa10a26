"""Plain modules that map images to logits, called as mmengine calls its models."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, fx, nn

from razordeploy.train.classifier import classification_outputs


def as_classifier(module: nn.Module, label_smoothing: float = 0.0) -> nn.Module:
    """Give ``module`` the call ``module(inputs, targets=None, mode='tensor')``, in place.

    The class is replaced rather than wrapped, so that module names and checkpoint keys stay its own. ``as_plain``
    undoes it. Of a graph module, whose class is its own and is made again by every copy, another module with the same
    names is returned that runs its code.
    """
    if isinstance(module, fx.GraphModule):
        module = GraphCode(module)
    original: Any = type(module)
    module.__class__ = _classifier_class(original, label_smoothing)
    return module


def as_plain(module: nn.Module) -> nn.Module:
    """Take back what ``as_classifier`` did, if anything."""
    original = getattr(type(module), "plain_class", None)
    if original is not None:
        module.__class__ = original
    return module


class _Shared:
    """How arguments and results are nested, which copies share: torch warns where they are copied."""

    def __init__(self, inputs: Any, outputs: Any) -> None:
        self.inputs = inputs
        self.outputs = outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self


class GraphCode(nn.Module):
    """The code of a graph module, with its parameters, buffers and submodules under their own names."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__()
        self._parameters, self._buffers, self._modules = (
            dict(getattr(graph_module, name)) for name in ("_parameters", "_buffers", "_modules")
        )
        self._non_persistent_buffers_set = set(graph_module._non_persistent_buffers_set)
        for name, value in vars(graph_module).items():
            # Constants that the code reads.
            if isinstance(value, Tensor):
                object.__setattr__(self, name, value)
        self.training = graph_module.training
        self._specs = _Shared(getattr(graph_module, "_in_spec", None), getattr(graph_module, "_out_spec", None))
        code = graph_module.graph.python_code(root_module="self")
        names: dict[str, Any] = dict(code.globals)
        exec(compile(code.src, f"<code of {type(graph_module).__name__}>", "exec"), names)
        self._code = names["forward"]

    @property
    def _in_spec(self) -> Any:
        return self._specs.inputs

    @property
    def _out_spec(self) -> Any:
        return self._specs.outputs

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the graph module."""
        return self._code(self, *args, **kwargs)


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
