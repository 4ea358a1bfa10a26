"""What every loader hands on: the inputs of one model call, the labels, the file names."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One model call's worth of samples."""

    inputs: tuple[Tensor, ...]
    """One tensor per model input, in the order of its arguments; axis 0 is the sample, images are (N, C, H, W)."""
    target: Tensor | None
    """Class index per sample, int64 (N,); None for unlabelled data."""
    names: tuple[str, ...] = ()
    """File name or index per sample, for messages; empty when not known."""

    def __len__(self) -> int:
        return len(self.inputs[0]) if self.inputs and self.inputs[0].ndim else 0

    def head(self, count: int) -> Batch:
        """The first ``count`` samples."""
        target = None if self.target is None else self.target[:count]
        return Batch(tuple(x[:count] for x in self.inputs), target, self.names[:count])
