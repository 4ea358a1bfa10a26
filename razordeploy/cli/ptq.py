"""``razordeploy ptq``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from razordeploy.backends.base import Backend
from razordeploy.cli.asked import Asked
from razordeploy.cli.deploying import deploy
from razordeploy.cli.jobs import RecipeJob
from razordeploy.job import Progress, PTQJob, PTQResult
from razordeploy.pipeline import run_ptq
from razordeploy.quantization.draft import Draft

_SHORT = 5000
"""Samples of an epoch when recovery trains and the recipe says nothing of it."""


def run(
    recipe_path: str,
    *,
    backends: Sequence[str] | None,
    checkpoint: Path | None,
    work_dir: Path | None,
    overrides: Mapping[str, str],
    command: str,
    threads: int,
    benchmark_seconds: float,
    trust: bool,
    data: Path | None = None,
    recover: bool = False,
) -> int:
    """Run the recipe and return the exit code: 0, 1 (a check failed), 3 (a backend is missing) or 128 + signal.

    ``command`` is what the user typed: it is in the report, and what an interrupted run is resumed with. ``data`` is
    a folder of images, in place of the recipe's.
    """
    asked = Asked.open(
        recipe_path,
        backends=backends,
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=overrides,
        trust=trust,
        data=data,
        switch=False,
    )

    def quantize(folder: Path, progress: Progress, before_replacing: Callable[[], None]) -> PTQResult:
        job = asked.as_job(
            PTQJob,
            folder,
            threads=threads,
            benchmark_seconds=benchmark_seconds,
            progress=progress,
            recover=recover,
            finetune=_finetune(asked.job, progress) if recover else None,
            before_replacing=before_replacing,
        )
        return run_ptq(job)

    return deploy(quantize, asked.work_dir, asked.backends, command=command, report=asked.report())


def _finetune(job: RecipeJob, progress: Progress) -> Callable[[Backend, Draft, Path], Draft]:
    """A short training of a draft on the recipe's training data, as its ``qat`` section says if there is one."""
    recipe = job.recipe
    if "qat" not in recipe.config:
        recipe = replace(recipe, qat=replace(recipe.qat, samples=_SHORT))

    def finetune(backend: Backend, draft: Draft, folder: Path) -> Draft:
        from razordeploy.cli.training import training_of
        from razordeploy.qat_pipeline import QATJob, trained_draft

        asked = QATJob(
            model=job.built.module,
            example_inputs=(),
            calibration=job.calibration,
            backends=[backend.name],
            work_dir=folder,
            quantize=job.recipe.quantize,
            progress=progress,
            training=training_of(replace(job, recipe=recipe)),
        )
        return trained_draft(asked, backend.name, draft)[0]

    return finetune
