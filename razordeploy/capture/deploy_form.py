"""Models that are two networks in one, with a method that makes the one that is deployed of the one that is trained.

Most of them are sums of layers, which the captured graph merges by itself (:mod:`razordeploy.capture.branches`); the
method is for what only its author knows, such as RepMLP's convolutions inside a fully connected layer.
"""

from __future__ import annotations

import copy
import weakref
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

_METHOD = "switch_to_deploy"
_FLAGS = ("deploy", "small_kernel_merged", "inference_mode")
"""Attributes by which such modules remember that they were switched."""
_MAX_DIFFERENCE = 1e-3
"""Of the outputs of both forms, relative; rounding alone makes about 1e-6."""
_SWITCHED: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def deploy_form(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[nn.Module, list[str]]:
    """A switched copy of ``model``, and lines for the user; ``model`` itself where there is nothing to switch.

    So it is where the copy cannot be made, or computes something else on the example inputs: a line says so.
    """
    if not _pending(model):
        return model, []
    try:
        twin = _copied(model)
        twin.eval()  # not every model returns itself
        failed = switch_all(twin)
        difference = _difference(model, twin, args, kwargs)
    except Exception as error:
        return model, [f"{_METHOD}() of a copy of the model failed: {_told(error)}: captured as it is trained"]
    notes = [f"{line}: captured as it is trained" for line in failed]
    if difference > _MAX_DIFFERENCE:
        line = (
            f"{_METHOD}() changes what the model computes by {difference:.2g} of its outputs: captured as it is trained"
        )
        return model, [line]
    return twin, notes


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


def _difference(model: nn.Module, twin: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> float:
    """Norm of the difference of the outputs over their norm, of the output where it is largest."""
    training = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            expected, found = (
                [x for x in pytree.tree_leaves(net(*args, **kwargs)) if isinstance(x, torch.Tensor)]
                for net in (model, twin)
            )
    finally:
        for part, was_training in training:
            part.training = was_training
    if [x.shape for x in expected] != [x.shape for x in found]:
        return float("inf")
    pairs = [(a.double(), b.double()) for a, b in zip(expected, found, strict=True)]
    return max((float((a - b).norm() / a.norm().clamp_min(1e-12)) for a, b in pairs), default=0.0)


def _told(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
