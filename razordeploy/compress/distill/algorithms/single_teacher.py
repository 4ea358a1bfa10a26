"""One teacher and one student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.compress.algorithm.base import (
    BaseAlgorithm,
    Losses,
    add_prefix,
    disable_inplace,
)
from razordeploy.compress.algorithm.build_model import build_architecture, load_teacher
from razordeploy.compress.distill.distillers.build import build_distiller
from razordeploy.compress.distill.distillers.ofd import OFDDistiller
from razordeploy.errors import ModelError, RecipeError

Self = TypeVar("Self", bound="SingleTeacherDistill")


class SingleTeacherDistill(BaseAlgorithm):
    """Trains a student with its own losses and those of a distiller between it and a teacher.

    Unless ``teacher_trainable``, the teacher stays in eval mode and gets no gradient.

    Args:
        distiller: see ``ConfigurableDistiller``.
        teacher: as ``architecture``.
        teacher_ckpt: weights of the teacher.
        teacher_key_mapping: regular expression -> replacement for the keys of that file.
        random_teacher: learn from random weights when there is no ``teacher_ckpt``.
        teacher_trainable: train the teacher too; its own losses are added.
        teacher_norm_eval: keep the batch norms of a teacher that is trained in eval mode.
        student_trainable: False while only connectors are trained.
        calculate_student_loss: False leaves the student's own losses out.
        teacher_module_inplace: leave in-place activations of the teacher as they are. They overwrite features that
            were recorded before them, which is refused where it happens.
        architecture: the student.
        data_preprocessor: of the batches; None: the student's own.
        init_cfg: mmengine's; with ``type='Pretrained'`` the teacher's weights may come from it.
    """

    def __init__(
        self,
        distiller: Any,
        teacher: Any,
        architecture: Any,
        teacher_ckpt: str | None = None,
        teacher_key_mapping: Mapping[str, str] | None = None,
        random_teacher: bool = False,
        teacher_trainable: bool = False,
        teacher_norm_eval: bool = True,
        student_trainable: bool = True,
        calculate_student_loss: bool = True,
        teacher_module_inplace: bool = False,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture=architecture, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.teacher = build_architecture(teacher, "teacher")
        may_be_random = random_teacher or teacher_trainable or (init_cfg or {}).get("type") == "Pretrained"
        load_teacher(self.teacher, teacher, teacher_ckpt, teacher_key_mapping, may_be_random)
        self.teacher_trainable = teacher_trainable
        self.teacher_norm_eval = teacher_norm_eval
        self.student_trainable = student_trainable
        self.calculate_student_loss = calculate_student_loss
        self.distillation_stopped = False
        self.teacher.requires_grad_(teacher_trainable)
        if not student_trainable:
            self.student.requires_grad_(False)
        disable_inplace(self.student)
        if not teacher_module_inplace:
            disable_inplace(self.teacher)
        self.distiller = build_distiller(distiller)
        self.prepare_distiller()
        self.train(self.training)

    def prepare_distiller(self) -> None:
        """Show the distiller whom it records, once their weights are loaded."""
        self.distiller.prepare_from_student(self.student)
        self.distiller.prepare_from_teacher(self.teacher)

    def loss(self, inputs: Tensor, data_samples: Any = None) -> Losses:
        """The student's losses as ``student.*``, those of the distiller as ``distill.*``.

        Raises:
            ModelError: nothing is left to minimise.
        """
        if self.distillation_stopped:
            return self._student_alone(inputs, data_samples)
        losses: Losses = {}
        distiller = self.distiller
        distiller.set_deliveries_override(False)
        with distiller.teacher_recorders, distiller.deliveries, torch.set_grad_enabled(self.teacher_trainable):
            found = self.run_teacher(inputs, data_samples)
        if self.teacher_trainable:
            losses.update(add_prefix(found, "teacher"))
        distiller.set_deliveries_override(True)
        losses.update(self._run_student(inputs, data_samples))
        losses.update(add_prefix(distiller.compute_distill_losses(), "distill"))
        distiller.reset_data_buffer()
        return losses

    def run_teacher(self, inputs: Tensor, data_samples: Any) -> Losses:
        """One forward pass of the teacher; its losses where it has some."""
        return self.teacher(inputs, data_samples, mode="loss")

    def train(self: Self, mode: bool = True) -> Self:
        """A teacher, and a student, that is not trained stays in eval mode: dropout and statistics too."""
        super().train(mode)
        teacher = getattr(self, "teacher", None)
        if mode and teacher is not None:
            if not self.teacher_trainable:
                teacher.eval()
            elif self.teacher_norm_eval:
                for module in teacher.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
            if not self.student_trainable:
                self.student.eval()
        return self

    def _run_student(self, inputs: Tensor, data_samples: Any) -> Losses:
        if not self.student_trainable and not self.calculate_student_loss and not self.distiller.needs_student:
            return {}
        distiller = self.distiller
        with distiller.student_recorders, distiller.deliveries, torch.set_grad_enabled(self.student_trainable):
            found = self.student(inputs, data_samples, mode="loss")
        return add_prefix(found, "student") if self.calculate_student_loss else {}

    def _student_alone(self, inputs: Tensor, data_samples: Any) -> Losses:
        if not self.calculate_student_loss or not self.student_trainable:
            raise ModelError(
                "distillation was stopped, and the student has no losses of its own to go on with",
                hint="set calculate_student_loss=True, or leave out StopDistillHook",
            )
        return add_prefix(self.student(inputs, data_samples, mode="loss"), "student")


class FpnTeacherDistill(SingleTeacherDistill):
    """A ``SingleTeacherDistill`` whose teacher runs its backbone and neck only."""

    def run_teacher(self, inputs: Tensor, data_samples: Any) -> Losses:
        """``teacher.extract_feat``; there are no losses.

        Raises:
            ModelError: the teacher has no such method.
        """
        extract: Any = getattr(self.teacher, "extract_feat", None)
        if extract is None:
            raise ModelError(
                f"FpnTeacherDistill: {type(self.teacher).__name__} has no extract_feat",
                hint="use SingleTeacherDistill",
            )
        extract(inputs)
        return {}


class OverhaulFeatureDistillation(SingleTeacherDistill):
    """A ``SingleTeacherDistill`` whose margins are set from the teacher's batch norms.

    A Comprehensive Overhaul of Feature Distillation (Heo et al. 2019, arXiv 1904.01866).
    """

    def prepare_distiller(self) -> None:
        """Set the margins too.

        Raises:
            RecipeError: the distiller is no ``OFDDistiller``.
        """
        super().prepare_distiller()
        if not isinstance(self.distiller, OFDDistiller):
            raise RecipeError(
                f"OverhaulFeatureDistillation: expected an OFDDistiller, got {type(self.distiller).__name__}",
                hint="distiller=dict(type='OFDDistiller', ...)",
            )
        self.distiller.init_ofd_connectors(self.teacher)
