"""Models that are two networks in one, with a method that makes the one that is deployed of the one that is trained.

Most of them are sums of layers, which the captured graph merges by itself (:mod:`razordeploy.capture.branches`); the
method is for what only its author knows, such as RepMLP's convolutions inside a fully connected layer.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_METHOD = "switch_to_deploy"
_FLAGS = ("deploy", "small_kernel_merged", "inference_mode")
"""Attributes by which such modules remember that they were switched."""
_MAX_DIFFERENCE = 1e-3
"""Of the outputs of both forms, relative; rounding alone makes about 1e-6."""
_SWITCHED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


@dataclass(frozen=True, kw_only=True)
class DeployForm:
    """What a model's own method makes of a copy of it."""

    module: nn.Module | None
    """In eval mode; None: the method is of no use."""
    notes: tuple[str, ...] = ()
    """Lines for the user."""


def deploy_form(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], merged: Callable[..., Any]
) -> DeployForm | None:
    """Switch a copy of ``model``, which is left as it was; None where there is nothing to switch.

    The copy is of no use where it fails, computes something else on the inputs, or has no fewer layers than
    ``merged``, the captured graph, to which it is compared.
    """
    if not _pending(model):
        return None
    try:
        twin = _copied(model)
        twin.eval()  # not every model returns itself
        failed = tuple(switch_all(twin))
        found, layers = _run(lambda: twin(*args, **kwargs))
    except Exception as error:
        return DeployForm(module=None, notes=(f"{_METHOD}() of a copy of the model failed: {_told(error)}",))
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    expected, most = _run(lambda: merged(*tensors))
    difference = _difference(expected, found)
    if difference > _MAX_DIFFERENCE:
        line = f"{_METHOD}() changes the model's outputs by {difference:.2g} of their size: it is not used"
        return DeployForm(module=None, notes=(line,))
    return DeployForm(module=twin if layers < most else None, notes=failed)


def switch_all(module: nn.Module) -> list[str]:
    """Call ``switch_to_deploy()`` on the outermost submodules that offer it and have not been switched yet, in place.

    Returns:
        One line for each that failed; it is as it was.
    """
    failed = []
    for path, submodule in _pending(module):
        before = _copied(submodule)
        try:
            getattr(submodule, _METHOD)()
            _SWITCHED.add(submodule)
        except Exception as error:
            submodule.__dict__.clear()
            submodule.__dict__.update(before.__dict__)
            failed.append(f"{_METHOD}() of '{path or type(submodule).__name__}' failed: {_told(error)}")
    return failed


def _pending(module: nn.Module) -> list[tuple[str, nn.Module]]:
    found: list[tuple[str, nn.Module]] = []
    outermost: list[str] = []
    for path, submodule in module.named_modules():
        inside = any(path.startswith(f"{outer}.") or not outer for outer in outermost)
        if inside or not callable(getattr(submodule, _METHOD, None)):
            continue
        outermost.append(path)
        if not _is_switched(submodule):
            found.append((path, submodule))
    return found


def _is_switched(module: nn.Module) -> bool:
    """By its own flag, or those of all its parts: not every model has one of its own."""
    if module in _SWITCHED or getattr(module, "deploy", False) is True:
        return True
    flags = [getattr(part, name, None) for part in module.modules() for name in _FLAGS]
    told = [flag for flag in flags if isinstance(flag, bool)]
    return bool(told) and all(told)


def _copied(module: nn.Module) -> nn.Module:
    """A deep copy; tensors that a module has computed from its parameters and kept, which torch refuses, included."""
    kept = [v for part in module.modules() for v in vars(part).values() if isinstance(v, torch.Tensor)]
    return copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf})


class _CountLayers(TorchDispatchMode):
    """Counts convolutions and products with matrices, as both a module and a captured graph run them."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.count += func in {_aten.convolution.default, _aten.addmm.default, _aten.mm.default}
        return func(*args, **(kwargs or {}))


def _run(call: Callable[[], Any]) -> tuple[list[torch.Tensor], int]:
    """The tensors that ``call`` returns, and how many layers it runs."""
    with torch.no_grad(), _CountLayers() as layers:
        result = call()
    return [x for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor)], layers.count


def _difference(expected: list[torch.Tensor], found: list[torch.Tensor]) -> float:
    """Norm of the difference over the norm, of the tensor where it is largest."""
    if [x.shape for x in expected] != [x.shape for x in found]:
        return float("inf")
    pairs = [(a.double(), b.double()) for a, b in zip(expected, found, strict=True)]
    return max((float((a - b).norm() / a.norm().clamp_min(1e-12)) for a, b in pairs), default=0.0)


def _told(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
