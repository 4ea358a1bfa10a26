"""Taking the channels that a mask keeps out of a tensor, and putting them back."""

from __future__ import annotations

import torch
from torch import Tensor

from razordeploy.errors import ModelError


def take(tensor: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """The slices of ``tensor`` along ``dim`` where ``mask`` is true; None keeps all.

    Keeping everything returns ``tensor`` itself and keeping a prefix returns a view, so writing to the result writes
    to ``tensor`` then; otherwise it is a copy.

    Raises:
        ModelError: the mask is not as long as the dimension, or keeps nothing.
    """
    if mask is None:
        return tensor
    if mask.numel() != tensor.size(dim):
        raise ModelError(
            f"expected a mask of {tensor.size(dim)} channels for dimension {dim} of a tensor of shape "
            f"{tuple(tensor.shape)}, got {mask.numel()}"
        )
    count = int(mask.sum())
    if count == 0:
        raise ModelError(f"a mask over {mask.numel()} channels keeps none of them", hint="keep at least one channel")
    if count == mask.numel():
        return tensor
    if bool(mask[:count].all()):
        return tensor.narrow(dim, 0, count)
    return tensor.index_select(dim, kept(mask).to(tensor.device))


def put(values: Tensor, mask: Tensor | None, dim: int) -> Tensor:
    """The inverse of ``take``: ``values`` where ``mask`` is true along ``dim``, zeros elsewhere."""
    if mask is None or values.size(dim) == mask.numel():
        return values
    shape = list(values.shape)
    shape[dim] = mask.numel()
    return values.new_zeros(shape).index_copy(dim, kept(mask).to(values.device), values)


def kept(mask: Tensor) -> Tensor:
    """Indices of the channels that ``mask`` keeps, ascending."""
    return torch.nonzero(mask.bool()).flatten()


def write_back(target: Tensor, values: Tensor, mask: Tensor | None) -> None:
    """Copy ``values``, once taken out of ``target`` along dimension 0 and changed since, back to where they were."""
    if mask is not None and values.untyped_storage().data_ptr() != target.untyped_storage().data_ptr():
        target.index_copy_(0, kept(mask).to(target.device), values)
