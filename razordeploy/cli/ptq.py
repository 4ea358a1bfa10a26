"""``razordeploy ptq``."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from razordeploy.api import build_report
from razordeploy.cli.jobs import RecipeJob
from razordeploy.cli.screen import ScreenProgress, stop_on_signals
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import UsageError
from razordeploy.pipeline import Interrupted, PTQJob, run_ptq
from razordeploy.report.console import print_report
from razordeploy.report.write import write_report
from razordeploy.workdir import WorkDir


def run(
    recipe_path: str,
    *,
    backends: Sequence[str] | None,
    checkpoint: Path | None,
    work_dir: Path | None,
    overrides: Mapping[str, str],
    threads: int,
    benchmark_seconds: float,
    trust: bool,
) -> int:
    """Run the recipe and return the exit code: 0, 1 (a check failed), 3 (a backend is missing) or 128 + signal."""
    start = time.perf_counter()
    recipe = load_recipe(recipe_path, overrides)
    names = list(backends or recipe.deploy.backends)
    if not names:
        raise UsageError("no backend was asked for", hint="--backend openvino,onnxruntime")
    job = RecipeJob.open(recipe, checkpoint, trust=trust)
    folder = work_dir or Path(recipe.work_dir or Path("work_dirs") / recipe.name)
    command = _command(recipe_path, names, checkpoint, work_dir, overrides)
    with WorkDir(folder) as work, stop_on_signals() as stop, ScreenProgress() as screen:
        ptq_job = PTQJob(
            model=job.built.module,
            example_inputs=job.example_inputs(),
            calibration=job.calibration,
            evaluation=job.evaluation if job.has_evaluation() else None,
            metric=job.metric(),
            backends=names,
            work_dir=work.path,
            quantize=recipe.quantize,
            deploy=recipe.deploy,
            calibration_samples=recipe.calibration.num_samples,
            data_fingerprint=job.data_fingerprint(),
            threads=threads,
            benchmark_seconds=benchmark_seconds,
            origin={"recipe": str(recipe.path.resolve()), "overrides": dict(overrides), "checkpoint": _text(checkpoint)},
            progress=screen.progress(stop),
        )
        try:
            result = run_ptq(ptq_job)
        except (Interrupted, KeyboardInterrupt) as error:
            screen.close()
            kept = f"{error.samples} calibration samples are kept" if isinstance(error, Interrupted) else "stopped"
            Console(stderr=True).print(f"interrupted: {kept}; resume with: {command}", markup=False, soft_wrap=True)
            return 128 + (stop.number or signal.SIGINT)
        report = build_report(
            result,
            names,
            model=str(recipe.model["type"]),
            recipe=str(recipe.path),
            seed=recipe.seed,
            command=command,
            calibration={"source": job.data_text()},
        )
        write_report(report, work.path)
    print_report(report, folder, seconds=time.perf_counter() - start)
    return exit_code(result.backends)


def exit_code(entries: Mapping[str, Mapping[str, object]]) -> int:
    """The worst of all backends: a missing one counts before a failed check."""
    codes = [int(str(e.get("exit_code", 0 if e["passed"] else 1))) for e in entries.values()]
    return max(codes, default=0)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())


def _command(
    recipe: str, names: Sequence[str], checkpoint: Path | None, work_dir: Path | None, overrides: Mapping[str, str]
) -> str:
    words = ["razordeploy", "ptq", recipe, "--backend", ",".join(names)]
    if checkpoint is not None:
        words += ["--checkpoint", str(checkpoint)]
    if work_dir is not None:
        words += ["--work-dir", str(work_dir)]
    for key, value in overrides.items():
        words += ["--set", f"{key}={value}"]
    return shlex.join(words)
