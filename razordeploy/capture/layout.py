"""Channels-last weights without touching the module they came from."""

from __future__ import annotations

import torch
from torch import nn


def channels_last(module: nn.Module) -> nn.Module:
    """Give ``module`` its own channels-last copies of 4-d parameters and buffers; return it.

    ``Module.to(memory_format=...)`` changes the tensors themselves, which a captured graph shares with the caller's
    model. A shared parameter stays shared.
    """
    copies: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for name, tensor in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
            if tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last):
                continue
            if id(tensor) not in copies:
                copy = tensor.detach().contiguous(memory_format=torch.channels_last)
                is_parameter = isinstance(tensor, nn.Parameter)
                copies[id(tensor)] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
            setattr(owner, name, copies[id(tensor)])
    return module
