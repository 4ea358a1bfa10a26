"""A student that teaches itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from razordeploy.compress.algorithm.base import (
    BaseAlgorithm,
    Losses,
    add_prefix,
    disable_inplace,
)
from razordeploy.compress.distill.distillers.build import build_distiller
from razordeploy.errors import RecipeError


class SelfDistill(BaseAlgorithm):
    """Distils between parts of one model, which runs once; teacher recorders look at the student too.

    Args:
        distiller: a ``BYOTDistiller``, whose teacher records carry no gradient.
        architecture: the model.
        calculate_student_loss: False leaves the model's own losses out.
        data_preprocessor: of the batches; None: the model's own.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        distiller: Any,
        architecture: Any,
        calculate_student_loss: bool = True,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture=architecture, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.calculate_student_loss = calculate_student_loss
        self.distillation_stopped = False
        disable_inplace(self.student)
        self.distiller = build_distiller(distiller)
        if self.distiller.deliveries.deliveries:
            raise RecipeError(
                "SelfDistill has one forward pass, in which nothing can be delivered", hint="remove distill_deliveries"
            )
        self.distiller.prepare_from_student(self.student)
        self.distiller.prepare_from_teacher(self.student)

    def loss(self, inputs: Tensor, data_samples: Any = None) -> Losses:
        """The model's losses as ``student.*``, those of the distiller as ``distill.*``."""
        distiller = self.distiller
        with distiller.student_recorders, distiller.teacher_recorders:
            found = self.student(inputs, data_samples, mode="loss")
        losses = add_prefix(found, "student") if self.calculate_student_loss else {}
        if not self.distillation_stopped:
            losses.update(add_prefix(distiller.compute_distill_losses(), "distill"))
        distiller.reset_data_buffer()
        return losses
