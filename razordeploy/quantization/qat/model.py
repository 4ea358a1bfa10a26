"""The network that is trained, as mmengine trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from razordeploy.errors import ModelError, RecipeError
from razordeploy.train.classifier import ShiftAndFlip, classification_outputs

Losses = Callable[[Any, Any], Any]
"""``(outputs, targets) -> loss``, or a dict of losses whose names contain ``loss``."""
Teach = Callable[[Any, Any], Tensor]
"""``(outputs, outputs of the teacher) -> loss``."""


class QATModel(BaseModel):
    """A network with fake quants, its loss and, where one is given, its teacher.

    Args:
        network: takes the inputs, returns the outputs.
        data_preprocessor: batch of the loader -> ``dict(inputs, targets)`` or ``dict(inputs, data_samples)``.
        losses: None: cross entropy on logits (N, classes).
        predictions: ``(outputs, targets) -> data samples``, for evaluators; None: class indices.
        teacher: takes the same inputs; it is not trained, and not part of the state dict.
        teach: the loss between both; its value is called ``distill_loss``.
        label_smoothing: of the cross entropy.
    """

    def __init__(
        self,
        network: nn.Module,
        data_preprocessor: nn.Module | None = None,
        *,
        losses: Losses | None = None,
        predictions: Callable[[Any, Any], Any] | None = None,
        teacher: nn.Module | None = None,
        teach: Teach | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor or ShiftAndFlip())
        self.network = network
        self.losses, self.predictions, self.teach = losses, predictions, teach
        self.label_smoothing = label_smoothing
        # In a list: no submodule, so that it is neither saved nor trained.
        self._teacher: list[nn.Module] = [] if teacher is None else [teacher]

    def forward(self, inputs: Any, targets: Any = None, data_samples: Any = None, mode: str = "tensor") -> Any:
        """``tensor``: the outputs; ``loss``: a dict of losses; ``predict``: class indices, or data samples."""
        arguments = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
        outputs = self.network(*arguments)
        wanted = targets if data_samples is None else data_samples
        if mode == "predict" and self.predictions is not None:
            return self.predictions(outputs, wanted)
        if mode != "loss":
            return classification_outputs(outputs, wanted, mode)
        found = self._losses(outputs, wanted)
        if self.teach is not None and self._teacher:
            found["distill_loss"] = self._taught(outputs, arguments)
        return found

    def _losses(self, outputs: Any, targets: Any) -> dict[str, Any]:
        if self.losses is None:
            found: Any = classification_outputs(outputs, targets, "loss", self.label_smoothing)
            return dict(found)
        found = self.losses(outputs, targets)
        if isinstance(found, Tensor):
            return {"loss": found}
        if not isinstance(found, Mapping) or not any("loss" in str(key) for key in found):
            raise RecipeError(f"expected a tensor or dict(loss=...) from the loss, got {type(found).__name__}")
        return dict(found)

    def _taught(self, outputs: Any, inputs: tuple[Any, ...]) -> Tensor:
        teacher, teach = self._teacher[0], self.teach
        assert teach is not None
        device = inputs[0].device
        if next((p for p in teacher.parameters() if p.device != device), None) is not None:
            teacher.to(device)
        with torch.no_grad():
            wanted = teacher(*inputs)
        student = outputs if isinstance(outputs, Tensor) else outputs[0]
        taught = teach(student, wanted if isinstance(wanted, Tensor) else wanted[0])
        if taught.dim():
            raise ModelError(f"expected one number from the distillation loss, got shape {tuple(taught.shape)}")
        return taught
