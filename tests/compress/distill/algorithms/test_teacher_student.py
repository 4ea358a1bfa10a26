"""Pairs of modules with losses: the same as the distiller written out, and refused where they say too little."""

from __future__ import annotations

import pytest
import torch

from razordeploy.compress.distill.algorithms.single_teacher import SingleTeacherDistill
from razordeploy.compress.distill.algorithms.teacher_student import (
    ABTeacherStudentDistillation,
    TeacherStudentDistillation,
)
from razordeploy.errors import RecipeError
from tests.compress.distill.tiny import images, kd, targets, tiny


def test_equals_the_distiller_written_out():
    losses = [{"type": "KLDivergence", "tau": 4, "name": "kl"}]
    components = [{"student_module": "fc", "teacher_module": "fc", "losses": losses}]
    short = TeacherStudentDistillation(student=tiny(1), teacher=tiny(2, width=8), components=components)
    long = SingleTeacherDistill(architecture=tiny(1), teacher=tiny(2, width=8), distiller=kd())
    a, b = short.train().loss(images(), targets()), long.train().loss(images(), targets())
    assert set(a) == {"student.loss", "distill.loss_kl"}
    assert torch.equal(a["distill.loss_kl"], b["distill.loss_kl"])


def test_activation_boundaries_look_at_what_goes_into_the_activation():
    connector = {"type": "ConvModuleConnector", "in_channel": 8, "out_channel": 16, "act_cfg": None}
    first = {**connector, "in_channel": 4, "out_channel": 8}
    components = [
        {"student_module": "relu1", "teacher_module": "relu1", "connector": first},
        {"student_module": "relu2", "teacher_module": "relu2", "connector": connector},
    ]
    teacher = tiny(2, width=8).eval()
    algorithm = ABTeacherStudentDistillation(student=tiny(1), teacher=teacher, components=components).train()
    assert [loss.loss_weight for loss in algorithm.distiller.distill_losses.values()] == [0.5, 1.0]
    x = images()
    losses = algorithm.loss(x, targets())
    assert set(losses) == {"distill.loss_0_0", "distill.loss_1_0"}
    student = algorithm.student.train()
    with torch.no_grad():
        seen = teacher.bn1(teacher.conv1(x))
        own = algorithm.distiller.connectors["component0"](student.bn1(student.conv1(x)))
        side = torch.where(seen > 0, 1.0, -1.0)
        expected = 0.5 * (1 - side * own).clamp(min=0).square().sum() / len(x) / 1000 * 3
    assert float(losses["distill.loss_0_0"].detach()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student_modul": "fc"}, r"components\[0\]: unknown key 'student_modul'; did you mean 'student_module'"),
        ({"teacher_module": None}, "expected 'teacher_module' as the name of a module"),
        ({"losses": []}, "expected 'losses'"),
        ({"losses": [{"type": "KLDivergenc"}]}, "unknown loss 'KLDivergenc'; did you mean 'KLDivergence'"),
        ({"losses": [{"type": "DKDLoss"}]}, "DKDLoss takes preds_S, preds_T, gt_labels, not a student and a teacher"),
    ],
)
def test_wrong_components(change, message):
    component = {"student_module": "fc", "teacher_module": "fc", "losses": [{"type": "KLDivergence"}], **change}
    with pytest.raises(RecipeError, match=message):
        TeacherStudentDistillation(student=tiny(1), teacher=tiny(2), components=[component])


def test_one_of_two():
    with pytest.raises(RecipeError, match="expected 'student'"):
        TeacherStudentDistillation(teacher=tiny(2), components=[{}])
    with pytest.raises(RecipeError, match="expected 'components'"):
        TeacherStudentDistillation(student=tiny(1), teacher=tiny(2))
