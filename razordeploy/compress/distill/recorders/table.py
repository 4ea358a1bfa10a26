"""The recorders that a recipe may name."""

from __future__ import annotations

from razordeploy.compress.distill.recorders.base import BaseRecorder
from razordeploy.compress.distill.recorders.function import FunctionInputsRecorder, FunctionOutputsRecorder
from razordeploy.compress.distill.recorders.method import MethodInputsRecorder, MethodOutputsRecorder
from razordeploy.compress.distill.recorders.module import (
    ModuleInputsRecorder,
    ModuleOutputsRecorder,
    ParameterRecorder,
)

RECORDERS: dict[str, type[BaseRecorder]] = {
    "FunctionInputsRecorder": FunctionInputsRecorder,
    "FunctionOutputsRecorder": FunctionOutputsRecorder,
    "MethodInputsRecorder": MethodInputsRecorder,
    "MethodOutputsRecorder": MethodOutputsRecorder,
    "ModuleInputsRecorder": ModuleInputsRecorder,
    "ModuleOutputsRecorder": ModuleOutputsRecorder,
    "ParameterRecorder": ParameterRecorder,
}
