"""``razordeploy ptq``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from razordeploy.backends.base import Backend
from razordeploy.cli.deploying import checked_backends, deploy
from razordeploy.cli.given import resolve
from razordeploy.cli.jobs import RecipeJob, with_images
from razordeploy.config.recipe import load_recipe
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
    recipe_path, overrides = resolve(recipe_path, overrides)
    recipe = load_recipe(recipe_path, overrides)
    if data is not None:
        overrides = with_images(recipe, overrides, data)
        recipe = load_recipe(recipe_path, overrides)
    names = checked_backends(recipe.deploy.backends if backends is None else backends)
    job = RecipeJob.open(recipe, checkpoint, trust=trust)

    def quantize(folder: Path, progress: Progress, before_replacing: Callable[[], None]) -> PTQResult:
        return run_ptq(
            PTQJob(
                model=job.built.module,
                example_inputs=job.example_inputs(),
                calibration=job.calibration,
                evaluation=job.evaluation if job.has_evaluation() else None,
                metric=job.metric(),
                backends=names,
                work_dir=folder,
                quantize=recipe.quantize,
                deploy=job.deploy,
                calibration_samples=recipe.calibration.num_samples,
                data_fingerprint=job.data_fingerprint(),
                threads=threads,
                benchmark_seconds=benchmark_seconds,
                origin={
                    "recipe": str(recipe.path.resolve()),
                    "overrides": dict(overrides),
                    "checkpoint": None if checkpoint is None else str(checkpoint.resolve()),
                },
                progress=progress,
                recover=recover,
                finetune=_finetune(job, progress) if recover else None,
                before_replacing=before_replacing,
            )
        )

    return deploy(
        quantize,
        work_dir or Path(recipe.work_dir or Path("work_dirs") / recipe.name),
        names,
        command=command,
        report={
            "model": recipe.model_name,
            "recipe": str(recipe.path),
            "seed": recipe.seed,
            "calibration": {"source": job.data_text()},
            "evaluation": {"source": job.evaluation_text()},
        },
    )


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
