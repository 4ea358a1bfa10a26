"""Channels-last memory layout, in which CPU convolutions on images are fastest."""

from __future__ import annotations

import torch


def channels_last(value: torch.Tensor) -> torch.Tensor:
    """Return an image tensor ``(N, C, H, W)`` in channels-last layout; other ranks as they are."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def weights_channels_last(module: torch.nn.Module) -> None:
    """Give ``module`` channels-last copies of its image weights; tensors that it shares with other modules stay.

    ``Module.to(memory_format=...)`` would change the shared ones, and refuses models with 3-D convolutions.
    """
    for owner in module.modules():
        for name, value in owner._parameters.items():
            if value is not None and value.dim() == 4:
                owner._parameters[name] = torch.nn.Parameter(channels_last(value.detach()), value.requires_grad)
        for name, buffer in owner._buffers.items():
            if buffer is not None and buffer.dim() == 4:
                owner._buffers[name] = channels_last(buffer)
