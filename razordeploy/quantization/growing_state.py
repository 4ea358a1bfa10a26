"""Modules whose tensors take their shape from the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class GrowingState(nn.Module):
    """A module that loads a state dict even where the shapes differ: a fresh one has seen no channels yet."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, own in (*self._buffers.items(), *self._parameters.items()):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and own is not None and saved.shape != own.shape:
                # Through .data: an optimizer may already hold the parameter.
                own.data = torch.empty(saved.shape, dtype=own.dtype, device=own.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
