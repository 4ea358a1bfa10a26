"""``razordeploy qat``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from razordeploy.cli.deploying import checked_backends, deploy
from razordeploy.cli.given import resolve
from razordeploy.cli.jobs import RecipeJob, with_images
from razordeploy.cli.training import training_of
from razordeploy.config.recipe import load_recipe
from razordeploy.job import Progress, PTQResult
from razordeploy.qat_pipeline import QATJob, run_qat
from razordeploy.train.processes import join


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
    amp: bool,
    launcher: str,
    data: Path | None = None,
) -> int:
    """Run the recipe and return the exit code: 0, 1 (a check failed), 3 (a backend is missing) or 128 + signal.

    ``command`` is what the user typed: it is in the report, and what an interrupted run is resumed with.
    """
    recipe_path, overrides = resolve(recipe_path, overrides)
    recipe = load_recipe(recipe_path, overrides)
    if data is not None:
        overrides = with_images(recipe, overrides, data)
        recipe = load_recipe(recipe_path, overrides)
    names = checked_backends(recipe.deploy.backends if backends is None else backends)
    job = RecipeJob.open(recipe, checkpoint, trust=trust)
    training = training_of(job, amp=amp, launcher=launcher)
    is_first = join(launcher) == 0

    def train(folder: Path, progress: Progress, before_replacing: Callable[[], None]) -> PTQResult:
        return run_qat(
            QATJob(
                model=job.built.module,
                example_inputs=job.example_inputs(),
                calibration=job.calibration,
                evaluation=job.evaluation if is_first and job.has_evaluation() else None,
                metric=job.metric(),
                backends=names,
                work_dir=folder,
                quantize=recipe.quantize,
                deploy=job.deploy,
                calibration_samples=recipe.calibration.num_samples,
                data_fingerprint=job.data_fingerprint() if is_first else None,
                threads=threads,
                benchmark_seconds=benchmark_seconds,
                origin={
                    "recipe": str(recipe.path.resolve()),
                    "overrides": dict(overrides),
                    "checkpoint": None if checkpoint is None else str(checkpoint.resolve()),
                },
                progress=progress,
                before_replacing=before_replacing,
                training=training,
            )
        )

    folder = work_dir or Path(recipe.work_dir or Path("work_dirs") / recipe.name)
    if not is_first:
        # The first process holds the work dir, and speaks.
        train(folder, Progress(), lambda: None)
        return 0
    return deploy(
        train,
        folder,
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
