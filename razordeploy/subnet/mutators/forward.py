"""Whether a model runs with narrower tensors, or needs its full widths with zeros in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin
from razordeploy.subnet.dynamic_ops.parameters import DynamicParametersMixin
from razordeploy.subnet.units.mutable_unit import MutableChannelUnit

_TOLERANCE = 1e-3
"""Largest difference of the two forms, relative to the largest output."""


def set_masked(model: nn.Module, masked: bool) -> None:
    """Let every dynamic operation of ``model`` run masked, or sliced."""
    for module in model.modules():
        if isinstance(module, DynamicChannelMixin | DynamicParametersMixin):
            module.masked = masked


def needs_masks(units: Sequence[MutableChannelUnit], *, tried: bool) -> str | None:
    """Why the model of ``units`` should not run sliced; None where it may.

    Args:
        units: of the model.
        tried: the model will be tried, so what depends on its code is not ruled out here.
    """
    for unit in units:
        if not unit.is_mutable:
            continue
        if len(unit.segments) > 1 and not tried:
            return f"the channels of '{unit.name}' are shuffled"
        for channel in unit.channels:
            if channel.tensor is not None:
                return f"'{channel.name}.{channel.tensor}' is the parameter of no layer"
    return None


def runs_sliced(model: nn.Module, units: Sequence[MutableChannelUnit], inputs: tuple[Tensor, ...]) -> str | None:
    """Try sliced against masked at the narrowest and at half width.

    Returns:
        Why sliced does not do; None where it does. Choices, modes and statistics are left as they were.

    Raises:
        ModelError: the model does not run masked either.
    """
    with _as_they_were(model, units):
        model.eval()
        for share in (0.0, 0.5):
            for unit in units:
                if unit.is_mutable:
                    unit.current_choice = _near(unit, share)
            try:
                masked = _outputs(model, inputs, masked=True)
            except Exception as error:
                raise ModelError(f"{type(model).__name__} does not run with masked channels: {error}") from error
            try:
                sliced = _outputs(model, inputs, masked=False)
            except Exception as error:  # the model's own code, which may raise anything
                return f"its code fixes a width ({type(error).__name__}: {str(error).splitlines()[:1]})"
            if not _close(sliced, masked):
                return "its code computes something else at other widths"
    return None


def _near(unit: Any, share: float) -> Any:
    """An allowed choice near ``share`` of the channels."""
    if not share:
        return unit.min_choice
    choices = getattr(unit, "choices", None)
    if choices:
        return choices[len(choices) // 2]
    return unit.allowed_number(max(1, int(unit.num_channels * share)))


@contextmanager
def _as_they_were(model: nn.Module, units: Sequence[MutableChannelUnit]) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    masks = [(unit, unit.mask.clone()) for unit in units]
    masked = [(module, module.masked) for module in model.modules() if hasattr(module, "masked")]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for unit, mask in masks:
            unit.restore_mask(mask)
        for operation, value in masked:
            operation.masked = value


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...], *, masked: bool) -> list[Tensor]:
    set_masked(model, masked)
    with torch.no_grad():
        result = model(*inputs)
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _close(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    if [x.shape for x in ours] != [x.shape for x in theirs]:
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(
        float((a - b).abs().max()) <= _TOLERANCE * max(float(b.abs().max()), 1e-6) for a, b in pairs if a.numel()
    )
