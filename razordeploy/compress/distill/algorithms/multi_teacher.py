"""Several teachers and one student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from razordeploy.compress.algorithm.base import (
    BaseAlgorithm,
    Losses,
    add_prefix,
    disable_inplace,
)
from razordeploy.compress.algorithm.build_model import build_architecture, load_teacher
from razordeploy.compress.distill.distillers.build import build_distiller
from razordeploy.errors import RecipeError, nearest

Self = TypeVar("Self", bound="MultiTeacherDistill")


class MultiTeacherDistill(BaseAlgorithm):
    """Trains a student with a distiller between it and an ensemble of teachers, who stay in eval mode.

    Teacher recorders start with the teacher's name: ``source='res34.head.fc'``. A loss that takes several teachers
    is given a list of records; ``MultiTeacherSoftCELoss`` weighs them.

    Args:
        distiller: see ``ConfigurableDistiller``.
        teachers: name -> ``dict(build_cfg=..., ckpt_path=..., key_mapping=None)``.
        architecture: the student.
        random_teacher: learn from random weights where a teacher has no ``ckpt_path``.
        selection: ``all`` run in every step; ``random``: one of them, as in MEAL, and then recorders name modules
            that all teachers have, without the teacher's name.
        calculate_student_loss: False leaves the student's own losses out, as MEAL and MEAL V2 do.
        data_preprocessor: of the batches; None: the student's own.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        distiller: Any,
        teachers: Mapping[str, Any],
        architecture: Any,
        random_teacher: bool = False,
        selection: str = "all",
        calculate_student_loss: bool = True,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture=architecture, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        loaded_later = (init_cfg or {}).get("type") == "Pretrained"
        self.teachers = build_teachers(teachers, random_teacher or loaded_later)
        self.calculate_student_loss = calculate_student_loss
        self.distillation_stopped = False
        disable_inplace(self.student)
        self.distiller = build_distiller(distiller)
        self.distiller.prepare_from_student(self.student)
        if selection not in ("all", "random"):
            raise RecipeError(f"MultiTeacherDistill: expected selection 'all' or 'random', got {selection!r}")
        self.selection = selection
        for module in [self.teachers] if selection == "all" else self.teachers.values():
            self.distiller.prepare_from_teacher(module)
        self.train(self.training)

    def loss(self, inputs: Tensor, data_samples: Any = None) -> Losses:
        """The student's losses as ``student.*``, those of the distiller as ``distill.*``."""
        if self.distillation_stopped:
            return add_prefix(self.student(inputs, data_samples, mode="loss"), "student")
        distiller = self.distiller
        teachers = list(self.teachers.values())
        if self.selection == "random":
            teachers = [teachers[int(torch.randint(len(teachers), ()))]]
            distiller.prepare_from_teacher(teachers[0])
        distiller.set_deliveries_override(False)
        with distiller.teacher_recorders, distiller.deliveries, torch.no_grad():
            for teacher in teachers:
                teacher(inputs, data_samples, mode="loss")
        distiller.set_deliveries_override(True)
        with distiller.student_recorders, distiller.deliveries:
            found = self.student(inputs, data_samples, mode="loss")
        losses = add_prefix(found, "student") if self.calculate_student_loss else {}
        losses.update(add_prefix(distiller.compute_distill_losses(), "distill"))
        distiller.reset_data_buffer()
        return losses

    def train(self: Self, mode: bool = True) -> Self:
        """The teachers stay in eval mode."""
        super().train(mode)
        if hasattr(self, "teachers"):
            self.teachers.eval()
        return self


def build_teachers(teachers: Mapping[str, Any], allow_random: bool) -> nn.ModuleDict:
    """Teachers by name: built, loaded, frozen, in eval mode.

    Args:
        teachers: name -> ``dict(build_cfg=..., ckpt_path=..., key_mapping=None)``, or a module.
        allow_random: take random weights where there is no ``ckpt_path``.

    Raises:
        RecipeError: an entry of another form, or without weights.
        CheckpointError: a file cannot be read or does not match.
    """
    if not isinstance(teachers, Mapping) or not teachers:
        raise RecipeError(f"expected teachers as name -> dict(build_cfg=..., ckpt_path=...), got {teachers!r}")
    built = nn.ModuleDict()
    for name, entry in teachers.items():
        if isinstance(entry, nn.Module):
            built[name] = build_architecture(entry, f"teacher '{name}'")
            continue
        known = ("build_cfg", "ckpt_path", "key_mapping")
        if not isinstance(entry, Mapping) or "build_cfg" not in entry:
            raise RecipeError(f"teacher '{name}': expected dict(build_cfg=..., ckpt_path=...), got {entry!r}")
        for key in entry:
            if key not in known:
                raise RecipeError(f"teacher '{name}': unknown key '{key}'", hint=nearest(str(key), known))
        model = build_architecture(entry["build_cfg"], f"teacher '{name}'")
        load_teacher(model, entry["build_cfg"], entry.get("ckpt_path"), entry.get("key_mapping"), allow_random)
        built[name] = model
    disable_inplace(built)
    return built.requires_grad_(False).eval()
