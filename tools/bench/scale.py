"""What one task, candidate, trial or image costs, and what many of them come to: the figures of docs/scale.md.

python tools/bench/scale.py tasks|search|study|calibrate [--ray]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from razordeploy.config.executor import ExecutorConfig
from razordeploy.config.paths import recipes_dir
from razordeploy.executors.build import build_executor


def nothing(x: int) -> int:
    """A task that costs nothing."""
    return x


def tasks(options: argparse.Namespace) -> None:
    """Start of a worker, and round trip of an empty task, on every executor."""
    configs = [
        ExecutorConfig(type="inline"),
        ExecutorConfig(type="local"),
        ExecutorConfig(type="local", max_parallel=2),
        ExecutorConfig(type="slurm", cluster="local", poll_s=0.05),
    ]
    if options.ray:
        configs.append(ExecutorConfig(type="ray"))
    for config in configs:
        count = 5 if config.type == "slurm" else 500
        with tempfile.TemporaryDirectory() as folder, build_executor(config, folder=folder) as pool:
            first = _timed(lambda pool=pool: pool.submit(nothing, 0).result())
            each = _timed(lambda pool=pool, n=count: [f.result() for f in [pool.submit(nothing, i) for i in range(n)]])
        name = f"{config.type} ({config.cluster})" if config.type == "slurm" else config.type
        print(
            f"{name:16s} {config.max_parallel} at once: first task {1000 * first:8.1f} ms, "
            f"then {1000 * each / count:8.2f} ms a task"
        )


def search(options: argparse.Namespace) -> None:
    """Candidates of the digits supernet: seconds each, and how they scale with workers."""
    with tempfile.TemporaryDirectory() as folder:
        _verb("train", "nas/digits/spos_supernet.py", "--work-dir", f"{folder}/super", "--set", "train.epochs=1")
        (checkpoint,) = (path for path in Path(folder, "super").glob("[a-z]*.pth") if "epoch" not in path.name)
        recipe = Path(folder) / "candidates.py"
        recipe.write_text(CANDIDATES.format(base=recipes_dir() / "nas/digits/spos_supernet.py", checkpoint=checkpoint))
        spent = {}
        for count in (8, 48):
            words = [
                "search",
                str(recipe),
                "--work-dir",
                f"{folder}/{count}",
                "--set",
                f"search.max_candidates={count}",
            ]
            before = _children_cpu()
            _verb(*words)
            spent[count] = _children_cpu() - before
    each = (spent[48] - spent[8]) / 40
    print(
        f"a candidate of the digits supernet (batch norms recalibrated on 300 images, scored on the training images): "
        f"{each:.2f} CPU s; {spent[8] - 8 * each:.1f} CPU s once"
    )


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


CANDIDATES = """
_base_ = ['{base}']
checkpoint = '{checkpoint}'
search = dict(type="random", max_candidates=40, split="train", recalibrate=300)
executor = dict(type="local", max_parallel=1, cpus=1)
"""


def _verb(*words: str) -> None:
    command = [sys.executable, "-m", "razordeploy.cli.main", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)


def study(options: argparse.Namespace) -> None:
    """A study of 1,000 trials of no duration: what asking, telling, keeping and showing them costs."""
    from razordeploy.hpo.args import parse_args
    from razordeploy.hpo.page import render_page
    from razordeploy.hpo.records import StudyRecord, TrialRecord, front
    from razordeploy.hpo.searchers import Searcher
    from razordeploy.hpo.storage import open_study
    from razordeploy.hpo.task import HpoTask, StopCriterion

    warnings.simplefilter("ignore")
    space = parse_args({f"x{i}": {"type": "Real", "low": 0.0, "high": 1.0} for i in range(5)}, "bench")
    names = ("Random", "Evolution", "TPE", *(("Skopt",) if options.gaussian else ()))
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            stop = StopCriterion(max_tries=1000)
            task = HpoTask(args=space, rewards={"value": "maximise"}, searcher=name, stop=stop)
            found = open_study(Path(folder), ["maximise"], None, writing=True)
            source, spent, count = Searcher(task), 0.0, 60 if name == "Skopt" else 1000
            marks = {}
            for number in range(count):
                started = time.process_time()
                _, values = source.ask(found, number)
                found.tell(number, -sum((v - 0.3) ** 2 for v in values.values()))
                spent += time.process_time() - started
                if number + 1 in (10, 100, 1000):
                    marks[number + 1] = 1000 * (time.process_time() - started)
            size = (Path(folder) / "study.journal").stat().st_size / count
            again = _timed(lambda folder=folder: open_study(Path(folder), ["maximise"], None, writing=True).trials)
            at = ", ".join(f"{ms:.0f} ms at {n}" for n, ms in marks.items())
            print(
                f"{name:10s} ask and tell: {at} trials; {spent:.1f} CPU s in all, {size:.0f} bytes of journal a trial, "
                f"opening it again {again:.2f} s"
            )
    params = [{f"x{i}": (7 * n + i) % 100 / 100 for i in range(5)} for n in range(1000)]
    trials = [
        TrialRecord(number=n, status="complete", params=p, values={"value": sum(p.values())}, seconds=1.0)
        for n, p in enumerate(params)
    ]
    record = StudyRecord(
        folder=Path("w"),
        status="max_tries",
        rewards={"value": "maximise"},
        trials=trials,
        elapsed_s=1.0,
        searcher="TPE",
    )
    page: list[str] = []
    seconds = _timed(lambda: page.append(render_page(record)))
    print(
        f"page of 1,000 trials: {seconds:.2f} s, {len(page[0]) / 1e6:.2f} MB; best of them: "
        f"{1000 * _timed(lambda: front(trials, record.rewards)):.0f} ms"
    )


def calibrate(options: argparse.Namespace) -> None:
    """Seconds and memory of calibration, by the number of images, through a synthetic stream."""
    import torch

    import razordeploy as rd
    from razordeploy.models.cifar import resnet20

    torch.set_num_threads(1)
    x = torch.randn(64, 3, 32, 32)
    spent, peaks = {}, {}
    for count in (640, 6400):
        with tempfile.TemporaryDirectory() as folder:
            stream = (x + 0.01 * i for i in range(count // 64))
            model, out = resnet20().eval(), Path(folder) / "out"
            started = time.process_time()
            rd.ptq(model, stream, example_inputs=(x[:2],), backend="onnxruntime", out_dir=out)
            spent[count] = time.process_time() - started
        peaks[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    each = 1000 * (spent[6400] - spent[640]) / (6400 - 640)
    model, started = resnet20().eval(), time.process_time()
    with torch.no_grad():
        for i in range(100):
            model(x + 0.01 * i)
    plain = 1000 * (time.process_time() - started) / 6400
    print(f"an image of 32 x 32 through resnet20, not observed: {plain:.2f} CPU ms")
    print(
        f"an image of 32 x 32 through resnet20, observed: {each:.2f} CPU ms; peak memory {peaks[640]:.0f} MB after 640 "
        f"images, {peaks[6400]:.0f} MB after 6,400"
    )


def _timed(function: Callable[[], Any]) -> float:
    started = time.monotonic()
    function()
    return time.monotonic() - started


PARTS = {"tasks": tasks, "search": search, "study": study, "calibrate": calibrate}


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--ray", action="store_true", help="the Ray executor too")
    parser.add_argument("--gaussian", action="store_true", help="the Gaussian process too: minutes")
    options = parser.parse_args()
    PARTS[options.part](options)


if __name__ == "__main__":
    main()
