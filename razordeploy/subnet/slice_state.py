"""Parameters and buffers of a sliced model."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from razordeploy.subnet.tracer.axes import find
from razordeploy.subnet.tracer.layout import Kept
from razordeploy.subnet.tracer.trace import Trace


def named_tensors(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer under every name it has."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def sliced_state(trace: Trace, kept: Kept, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of the sliced model, by each name; none is shared with the original.

    Types, devices, ``requires_grad`` and memory formats stay, parameters stay parameters, and a tensor of two names
    stays one tensor.
    """
    made: dict[int, torch.Tensor] = {}
    for name, old in tensors.items():
        if name in trace.state:
            made[id(old)] = _like(old, _sliced(trace, kept, name, old.detach()))
    for old in tensors.values():
        if id(old) not in made:
            made[id(old)] = _like(old, old.detach())
    return {name: made[id(old)] for name, old in tensors.items()}


def _like(old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    if new.untyped_storage().data_ptr() == old.untyped_storage().data_ptr():
        new = new.clone()
    if old.dim() == 4 and not old.is_contiguous() and old.is_contiguous(memory_format=torch.channels_last):
        new = new.contiguous(memory_format=torch.channels_last)
    return torch.nn.Parameter(new, old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


def _sliced(trace: Trace, kept: Kept, name: str, value: torch.Tensor) -> torch.Tensor:
    """The positions of ``value`` that stay, in their new order."""
    dims = [find(axis) for axis in trace.state[name]]
    grouped = trace.grouped.get(name)
    result = value
    for dim, axis in enumerate(dims):
        if grouped is not None and dim < 2:
            continue
        result = _along(result, dim, kept.index(axis))
    if grouped is None:
        return result
    width, blocks = value.shape[0] // len(grouped.rows), []
    for group, (rows, own) in enumerate(zip(grouped.rows, grouped.own, strict=True)):
        block = result[group * width : (group + 1) * width]
        blocks.append(_along(_along(block, 0, kept.index(rows)), 1, kept.index(own)))
    return torch.cat(blocks)


def _along(value: torch.Tensor, dim: int, index: torch.Tensor) -> torch.Tensor:
    if len(index) == value.shape[dim] and torch.equal(index, torch.arange(len(index))):
        return value
    return value.index_select(dim, index.to(value.device))
