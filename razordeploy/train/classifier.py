"""A plain classification module as mmengine trains it."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.errors import ModelError


class ShiftAndFlip(BaseDataPreprocessor):
    """Moves batches to the model's device; in training shifts each image by up to ``shift`` pixels and may mirror it.

    The border is filled with the image's lowest value, which is the background of normalised digits.
    """

    def __init__(self, shift: int = 0, flip: bool = False) -> None:
        super().__init__()
        self.shift, self.flip = shift, flip

    def forward(self, data: Any, training: bool = False) -> dict[str, Any]:
        """(inputs, target) -> ``dict(inputs, targets)``; inputs (N, C, H, W)."""
        inputs, targets = self.cast_data(data)
        if training and self.shift:
            inputs = _shifted(inputs, self.shift)
        if training and self.flip:
            mirrored = torch.rand(len(inputs), 1, 1, 1, device=inputs.device) < 0.5
            inputs = torch.where(mirrored, inputs.flip(-1), inputs)
        return {"inputs": inputs, "targets": targets}


class Classifier(BaseModel):
    """Cross entropy on a module that maps images to logits; ``module`` itself stays untouched."""

    def __init__(
        self, module: nn.Module, data_preprocessor: nn.Module | None = None, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor or ShiftAndFlip())
        # Not `module`: mmengine takes that for a parallel wrapper and strips it from the keys it loads.
        self.network = module
        self.label_smoothing = label_smoothing

    def forward(self, inputs: Tensor, targets: Tensor | None = None, mode: str = "tensor") -> Any:
        """``tensor``: logits (N, classes); ``loss``: ``dict(loss=scalar)``; ``predict``: class indices (N,)."""
        return classification_outputs(self.network(inputs), targets, mode, self.label_smoothing)


def classification_outputs(logits: Any, targets: Tensor | None, mode: str, label_smoothing: float = 0.0) -> Any:
    """What a classifier returns in mmengine's modes.

    ``tensor``: the logits as they are; ``loss``: ``dict(loss=cross entropy)``; ``predict``: class indices (N,).

    Raises:
        ModelError: the logits are not (N, classes), the mode is another one, or ``loss`` has no targets.
    """
    if mode == "tensor":
        return logits
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"expected logits (N, classes) from the model to train it, got {found}")
    if mode == "predict":
        return logits.argmax(1)
    if mode == "loss" and targets is not None:
        return {"loss": functional.cross_entropy(logits, targets, label_smoothing=label_smoothing)}
    raise ModelError(f"expected mode 'tensor', 'predict', or 'loss' with targets, got {mode!r}")


def _shifted(images: Tensor, shift: int) -> Tensor:
    count, _, height, width = images.shape
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    padded = functional.pad(images - low, (shift,) * 4)
    top, left = torch.randint(0, 2 * shift + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Advanced indices around the channel slice put the channel axis last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2) + low
