"""``razordeploy ptq``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from razordeploy.api import build_report
from razordeploy.backends.registry import BUILT_IN, check_names
from razordeploy.cli.jobs import RecipeJob
from razordeploy.cli.screen import ScreenProgress
from razordeploy.cli.signals import Signalled, stop_on_signals
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import UsageError
from razordeploy.job import PTQJob
from razordeploy.pipeline import run_ptq
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.report.console import print_report
from razordeploy.report.write import remove_report, write_report
from razordeploy.workdir import WorkDir


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
) -> int:
    """Run the recipe and return the exit code: 0, 1 (a check failed), 3 (a backend is missing) or 128 + signal.

    ``command`` is what the user typed: it is in the report, and what an interrupted run is resumed with. ``data`` is
    a folder of images, in place of the recipe's.
    """
    start = time.perf_counter()
    recipe = load_recipe(recipe_path, overrides)
    if data is not None:
        kind = {} if recipe.data else {"data.type": "image_folder"}
        overrides = {**overrides, **kind, "data.root": repr(str(data))}
        recipe = load_recipe(recipe_path, overrides)
    names = list(dict.fromkeys(recipe.deploy.backends if backends is None else backends))
    if not names:
        raise UsageError("no backend was asked for", hint=f"--backend {','.join(BUILT_IN[:2])}")
    check_names(names)
    job = RecipeJob.open(recipe, checkpoint, trust=trust)
    folder = work_dir or Path(recipe.work_dir or Path("work_dirs") / recipe.name)
    with WorkDir(folder) as work, stop_on_signals() as stop, ScreenProgress() as screen:
        try:
            result = run_ptq(
                PTQJob(
                    model=job.built.module,
                    example_inputs=job.example_inputs(),
                    calibration=job.calibration,
                    evaluation=job.evaluation if job.has_evaluation() else None,
                    metric=job.metric(),
                    backends=names,
                    work_dir=work.path,
                    quantize=recipe.quantize,
                    deploy=job.deploy,
                    calibration_samples=recipe.calibration.num_samples,
                    data_fingerprint=job.data_fingerprint(),
                    threads=threads,
                    benchmark_seconds=benchmark_seconds,
                    origin={
                        "recipe": str(recipe.path.resolve()),
                        "overrides": dict(overrides),
                        "checkpoint": _text(checkpoint),
                    },
                    progress=screen.progress(stop),
                    before_replacing=lambda: remove_report(work.path),
                )
            )
        except (Interrupted, Signalled) as end:
            screen.close()
            number = end.number if isinstance(end, Signalled) else stop.number
            what = f"interrupted: {end}" if isinstance(end, Interrupted) else "interrupted"
            print(f"{what}; resume with: {command}", file=sys.stderr)
            return 128 + number
        report = build_report(
            result,
            names,
            model=recipe.model_name,
            recipe=str(recipe.path),
            seed=recipe.seed,
            command=command,
            calibration={"source": job.data_text()},
            evaluation={"source": job.evaluation_text()},
        )
        write_report(report, work.path)
    print_report(report, folder, seconds=time.perf_counter() - start)
    for name, failure in result.errors.items():
        print(f"error: {name}: {failure}", file=sys.stderr)
    return exit_code(result.backends)


def exit_code(entries: Mapping[str, Mapping[str, object]]) -> int:
    """The worst of all backends: a missing one counts before a failed check."""
    codes = [int(str(e.get("exit_code", 0 if e["passed"] else 1))) for e in entries.values()]
    return max(codes, default=0)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.resolve())
