"""The algorithms that a recipe may name."""

from __future__ import annotations

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.distill.algorithms.data_free import DAFLDataFreeDistillation, DataFreeDistillation
from razordeploy.compress.distill.algorithms.multi_teacher import MultiTeacherDistill
from razordeploy.compress.distill.algorithms.self_distill import SelfDistill
from razordeploy.compress.distill.algorithms.single_teacher import (
    FpnTeacherDistill,
    OverhaulFeatureDistillation,
    SingleTeacherDistill,
)
from razordeploy.compress.distill.algorithms.teacher_student import (
    ABTeacherStudentDistillation,
    TeacherStudentDistillation,
)

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "ABTeacherStudentDistillation": ABTeacherStudentDistillation,
    "DAFLDataFreeDistillation": DAFLDataFreeDistillation,
    "DataFreeDistillation": DataFreeDistillation,
    "FpnTeacherDistill": FpnTeacherDistill,
    "MultiTeacherDistill": MultiTeacherDistill,
    "OverhaulFeatureDistillation": OverhaulFeatureDistillation,
    "SelfDistill": SelfDistill,
    "SingleTeacherDistill": SingleTeacherDistill,
    "TeacherStudentDistillation": TeacherStudentDistillation,
}
