"""The stages that a pipeline may name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from razordeploy.cli.stages.job import StageJob, StageResult

# Nothing is imported before a stage runs.
STAGES: dict[str, str] = {
    "train": "razordeploy.cli.stages.models:run_train",
    "search": "razordeploy.cli.stages.models:run_search",
    "export": "razordeploy.cli.stages.models:run_export",
    "ptq": "razordeploy.cli.stages.engines:run_ptq",
    "qat": "razordeploy.cli.stages.engines:run_qat",
    "convert": "razordeploy.cli.stages.engines:run_convert",
}


def stage_function(kind: str) -> Callable[[StageJob], StageResult]:
    """What runs a stage of this kind."""
    module, _, function = STAGES[kind].partition(":")
    found: Callable[[StageJob], StageResult] = getattr(importlib.import_module(module), function)
    return found
