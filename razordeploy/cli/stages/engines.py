"""Stages that make engines: ``ptq``, ``qat`` and ``convert``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from razordeploy.cli.stages.job import StageJob, StageResult
from razordeploy.report.write import JSON_NAME
from razordeploy.storage import MANIFEST

BENCHMARK_SECONDS = 1.0
"""Latency measurement of each backend, unless the stage says otherwise."""


def run_ptq(job: StageJob) -> StageResult:
    """Quantize after training."""
    from razordeploy.cli.ptq import run

    return _deployed(job, run)


def run_qat(job: StageJob) -> StageResult:
    """Train on the engines' grids."""
    from razordeploy.cli.qat import run

    return _deployed(job, run, amp=False, launcher="none")


def run_convert(job: StageJob) -> StageResult:
    """Engines in float."""
    from razordeploy.cli.convert import run

    return _deployed(job, run, recipe=None, data=None)


def _deployed(job: StageJob, run: Callable[..., int], **more: Any) -> StageResult:
    options = job.config.options
    backends = options.get("backends")
    code = run(
        job.recipe,
        backends=None if backends is None else list(backends),
        checkpoint=None,
        work_dir=job.folder,
        overrides=dict(job.overrides),
        command=job.command,
        threads=int(options.get("threads", 0)),
        benchmark_seconds=float(options.get("benchmark_seconds", BENCHMARK_SECONDS)),
        trust=False,
        **more,
    )
    report = job.folder / JSON_NAME
    found = json.loads(report.read_text()) if report.is_file() else {}
    artifacts: dict[str, Path] = {}
    for name in found.get("backends", {}):
        if (job.folder / name / MANIFEST).is_file():
            artifacts[name] = job.folder / name
    return StageResult(artifacts=artifacts, exit_code=code, figures={"report": found})
