"""What an operator's function is given: the node, tensors, and arrays that are known without running the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from razordeploy.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Op:
    """One node of the file, free of protobuf."""

    name: str
    """Unique in the graph."""
    type: str
    """``Conv``, ``Gemm`` ...; of the default domain."""
    version: int
    """Opset of the default domain that the file imports."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Numbers, strings, lists of them, and arrays."""
    outputs: int = 1
    """How many outputs the node names."""

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute, or ``default`` where the node does not set it."""
        return self.attributes.get(key, default)

    def refuse(self, what: str, hint: str | None = None) -> ModelError:
        """The error for what this import cannot do."""
        return ModelError(f"node '{self.name}' ({self.type}, opset {self.version}): {what}", hint=hint)


@dataclass(frozen=True, eq=False)
class Known:
    """An array that is known while the graph is built: a constant, or a shape, whose sizes may be symbolic."""

    array: np.ndarray
    """Of dtype object where it holds a symbolic size."""
    tensor: torch.Tensor | None = None
    """The parameter that holds it; None for what was computed on the way."""

    def as_tensor(self) -> torch.Tensor:
        """The parameter, or a new tensor."""
        if self.tensor is not None:
            return self.tensor
        if self.array.dtype != object:
            # Not from_numpy(), which torch.export does not see.
            return torch.tensor(self.array.tolist(), dtype=torch.from_numpy(np.empty(0, self.array.dtype)).dtype)
        flat = [torch.scalar_tensor(x, dtype=torch.int64) for x in self.array.reshape(-1)]
        return torch.stack(flat).reshape(self.array.shape)


Value = torch.Tensor | Known


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one operator type runs."""

    run: Callable[..., Any]
    """``(op, *inputs) -> Value or a tuple of them``: a tensor per input, None for one that is left out."""
    known: tuple[int, ...] = ()
    """Positions of inputs that have to be known; they are given as arrays."""
    raw: tuple[int, ...] = ()
    """Positions of inputs that come as they are, known or not."""
    scalars: bool = False
    """True: a known number comes as a python number."""
    fold: Callable[..., np.ndarray | None] | None = None
    """``(op, *arrays) -> array`` where every input is known, or None: it has to run after all. For what shape
    arithmetic is made of."""


def integers(values: np.ndarray | Sequence[Any]) -> list[Any]:
    """Sizes, axes or positions as python integers; symbolic ones stay as they are."""
    return [x if isinstance(x, torch.SymInt) else int(x) for x in np.asarray(values).reshape(-1)]


def sizes(x: torch.Tensor) -> np.ndarray:
    """The shape of ``x`` as an array, of dtype object where a size is symbolic."""
    fixed = all(isinstance(s, int) for s in x.shape)
    result = np.empty(x.dim(), dtype=np.int64 if fixed else object)
    for i, size in enumerate(x.shape):
        result[i] = size
    return result


def plain(x: np.ndarray) -> np.ndarray:
    """The array as int64 where it has become free of symbolic sizes."""
    if x.dtype == object and not any(isinstance(v, torch.SymInt | torch.SymFloat) for v in x.reshape(-1)):
        return x.astype(np.asarray(x.reshape(-1).tolist()).dtype if x.size else np.int64)
    return x
