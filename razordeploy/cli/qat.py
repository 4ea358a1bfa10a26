"""``razordeploy qat``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from razordeploy.cli.asked import Asked
from razordeploy.cli.deploying import deploy
from razordeploy.cli.training import training_of
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
    asked = Asked.open(
        recipe_path,
        backends=backends,
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=overrides,
        trust=trust,
        data=data,
    )
    training = training_of(asked.job, amp=amp, launcher=launcher)
    is_first = join(launcher) == 0

    def train(folder: Path, progress: Progress, before_replacing: Callable[[], None]) -> PTQResult:
        job = asked.as_job(
            QATJob,
            folder,
            first=is_first,
            threads=threads,
            benchmark_seconds=benchmark_seconds,
            progress=progress,
            before_replacing=before_replacing,
            training=training,
        )
        return run_qat(job)

    if not is_first:
        # The first process holds the work dir, and speaks.
        train(asked.work_dir, Progress(), lambda: None)
        return 0
    return deploy(train, asked.work_dir, asked.backends, command=command, report=asked.report())
