"""Seeded float64 arrays, the same on every version of every library, and softmax written out."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

LABELS = (0, 3, 1, 4, 2, 2)
LOGITS = (6, 5)
FEATURES = (4, 6, 3, 5)


def array(seed: int, *shape: int, scale: float = 1.0) -> Array:
    # The legacy generator's stream is frozen by numpy's policy.
    return np.random.RandomState(seed).standard_normal(shape) * scale


def tensor(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.from_numpy(array(seed, *shape, scale=scale))


def logits() -> tuple[Tensor, Tensor]:
    """Of student and teacher, (6, 5)."""
    return tensor(1, *LOGITS, scale=2.0), tensor(2, *LOGITS, scale=2.0)


def features() -> tuple[Tensor, Tensor]:
    """Of student and teacher, (4, 6, 3, 5)."""
    return tensor(3, *FEATURES), tensor(4, *FEATURES)


def labels() -> Tensor:
    return torch.tensor(LABELS)


def softmax(row: Array, tau: float = 1.0) -> Array:
    shifted = np.exp((row - row.max()) / tau)
    return shifted / shifted.sum()


def close(found: Tensor, expected: float | Array, tolerance: float = 1e-9) -> bool:
    return bool(np.allclose(found.detach().numpy(), expected, rtol=tolerance, atol=tolerance))
