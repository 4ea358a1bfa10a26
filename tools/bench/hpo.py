"""Hyper-parameter search: searchers against random, assessors' savings, cost per trial, workers, and kill -9.

    python tools/bench/hpo.py searchers|assessors|overhead|workers|kill|units [--seeds N] [--rounds N]

Each part prints its figures and the limits they are held to; the exit code is 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from razordeploy.hpo.args import parse_args
from razordeploy.hpo.assessors import Assessor, CurveFitting, MedianStop
from razordeploy.hpo.records import read_study
from razordeploy.hpo.run import run_study
from razordeploy.hpo.searchers import Searcher
from razordeploy.hpo.storage import optuna
from razordeploy.hpo.task import HpoTask, StopCriterion, parse_task

SPACE = {
    "lr": {"type": "Real", "low": 1e-5, "high": 1.0, "log": True},
    "momentum": {"type": "Real", "low": 0.0, "high": 1.0},
    "depth": {"type": "Int", "low": 1, "high": 20},
    "kind": {"type": "Categorical", "values": ["a", "b", "c", "d"]},
}
PENALTY = {"a": 0.3, "b": 0.1, "c": 0.0, "d": 0.5}


def landscape(values: dict[str, Any]) -> float:
    """A function of four arguments with the known optimum 0 at lr 0.01, momentum 0.9, depth 14, kind c."""
    return -(
        ((math.log10(values["lr"]) + 2) / 3) ** 2
        + (values["momentum"] - 0.9) ** 2
        + ((values["depth"] - 14) / 10) ** 2
        + PENALTY[values["kind"]]
    )


def best_of(searcher: str, seed: int, trials: int) -> float:
    """The best value that a searcher finds."""
    task = HpoTask(
        args=parse_args(SPACE, "bench"),
        rewards={"value": "maximise"},
        searcher=searcher,
        seed=seed,
        stop=StopCriterion(max_tries=trials),
    )
    study = optuna().create_study(direction="maximize")
    source = Searcher(task)
    best = -math.inf
    for number in range(trials):
        _, values = source.ask(study, number)
        value = landscape(values)
        study.tell(number, value)
        best = max(best, value)
    return best


def searchers(options: argparse.Namespace) -> bool:
    """Evolution and TPE against random at an equal budget."""
    names = ["Random", "Evolution", "TPE", *(["Skopt"] if options.gaussian else [])]
    found: dict[str, list[float]] = {}
    for name in names:
        started = time.process_time()
        found[name] = [
            best_of(name, seed, options.trials) for seed in range(options.first, options.first + options.seeds)
        ]
        cost = (time.process_time() - started) / options.seeds
        wins = sum(a > b for a, b in zip(found[name], found["Random"], strict=True))
        mean = statistics.mean(found[name])
        print(f"{name:10s} mean best {mean:8.4f}   beats Random {wins}/{options.seeds}   {cost:.2f} CPU s a study")
    need = math.ceil(25 / 30 * options.seeds)
    wins = {n: sum(a > b for a, b in zip(found[n], found["Random"], strict=True)) for n in names[1:]}
    return all(count >= need for count in wins.values())


FAMILIES = {
    "ends far apart, rates within 3x": (False, (0.1, 0.3)),
    "ends far apart, rates within 10x": (False, (0.03, 0.3)),
    "ends close, rates within 10x": (True, (0.03, 0.3)),
}
"""Whether the curves of one study end close to each other, and how fast they rise, 1/steps: with 10x, a late riser may
be the best and look hopeless early. The first family is the one that is held to the limit."""


def curves(seed: int, close: bool, rates: tuple[float, float], count: int = 60, steps: int = 50) -> list[list[float]]:
    """Noisy learning curves: an end, a rate, and noise of half a point."""
    source = random.Random(seed)
    found = []
    for _ in range(count):
        end = source.betavariate(5, 2) * 100 if close else source.uniform(10, 95)
        rate = source.uniform(*rates)
        found.append([end * (1 - math.exp(-rate * s)) + source.gauss(0, 0.5) for s in range(1, steps + 1)])
    return found


def assessors(options: argparse.Namespace) -> bool:
    """Steps that an assessor saves, and whether the best trial survives it."""
    good = True
    for index, (family, shape) in enumerate(FAMILIES.items()):
        # Fitting curves takes seconds a study.
        for name, rounds in (("MedianStop", 5 * options.rounds), ("CurveFitting", options.rounds)):
            saved, kept, cost = _assessed(name, shape, rounds)
            print(
                f"{name:12s} {family:32s} saves {100 * statistics.mean(saved):.1f} % of the steps, the best trial "
                f"survives {kept}/{rounds}, {cost:.2f} CPU s a study of 60 trials",
                flush=True,
            )
            if name == "MedianStop":
                good &= statistics.mean(saved) >= 0.4 and (kept == rounds or index > 0)
    return good


def _assessed(name: str, shape: tuple[bool, tuple[float, float]], rounds: int) -> tuple[list[float], int, float]:
    saved, kept, started = [], 0, time.process_time()
    for seed in range(rounds):
        family = curves(seed, *shape)
        steps = len(family[0])
        rule: Assessor = MedianStop(maximise=True, start_step=5)
        if name == "CurveFitting":
            rule = CurveFitting(maximise=True, epoch_num=steps, start_step=15, gap=5)
        ends = [values[-1] for values in family]
        used = 0
        for values in family:
            stop = next((s for s in range(1, steps + 1) if rule.stop(0, values[:s]) is not None), None)
            used += stop or steps
            if stop is None:
                rule.ended(values)
                kept += values[-1] == max(ends)
        saved.append(1 - used / (steps * len(family)))
    return saved, kept, (time.process_time() - started) / rounds


def _task(template: str, parallel: int, tries: int, **changes: Any) -> HpoTask:
    values = {
        "task": {"template": template},
        "search_args": {"x": {"type": "Real", "low": 0.0, "high": 1.0}},
        "reward_attribute": "score",
        "searcher": "Random",
        "scheduler": {"parallel_size": parallel, "stop_criterion": {"max_tries": tries}},
        **changes,
    }
    return parse_task(values, Path("bench.yaml"))


ECHO = "echo '{{\"score\": {x}}}'"


def overhead(options: argparse.Namespace) -> bool:
    """Seconds of a study per trial, beyond those of the trial's process alone."""
    count = 10 * options.rounds
    command = ["echo", '{"score": 0.5}']
    good = True
    for searcher in ("Random", "TPE", "Evolution"):
        with tempfile.TemporaryDirectory() as folder:
            task = _task(ECHO, 1, count, searcher=searcher)
            started, used = time.monotonic(), _cpu_seconds()
            run_study(task, Path(folder) / "w")
            wall, cpu = time.monotonic() - started, _cpu_seconds() - used
        started, used = time.monotonic(), _cpu_seconds()
        for _ in range(count):
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        bare, bare_cpu = time.monotonic() - started, _cpu_seconds() - used
        per_trial, cpu_trial = 1000 * (wall - bare) / count, 1000 * (cpu - bare_cpu) / count
        print(
            f"{searcher:10s} {count} trials: {per_trial:.1f} ms of wall time a trial beyond the process, "
            f"{cpu_trial:.1f} ms of CPU (load average {os.getloadavg()[0]:.1f})"
        )
        good = good and per_trial <= 50
    return good


def _cpu_seconds() -> float:
    """CPU time of this process and of those of its children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


SPIN = "import sys, time, json\nend = time.process_time() + 1.0\nwhile time.process_time() < end: pass\n"


def workers(options: argparse.Namespace) -> bool:
    """Two workers against one: trials that wait, and trials that compute."""
    found = {}
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        nap, spin = Path(folder) / "nap.py", Path(folder) / "spin.py"
        nap.write_text("import time, json; time.sleep(1.0); print(json.dumps({'score': 1}))")
        spin.write_text(f"{SPIN}print(json.dumps({{'score': 1}}))")
        for name, script in (("waiting", nap), ("computing", spin)):
            walls = []
            for parallel in (1, 2):
                started = time.monotonic()
                task = _task(f"{{python}} -S {script} {{x}}", parallel, 12)
                run_study(task, Path(folder) / f"{name}{parallel}")
                walls.append(time.monotonic() - started)
            found[name] = walls[0] / walls[1]
            print(
                f"{name:10s} 12 trials of 1 s: {walls[0]:.1f} s with 1 worker, {walls[1]:.1f} s with 2: "
                f"{found[name]:.2f}x"
            )
    return found["waiting"] >= 1.7 and found["computing"] >= 1.7


TRIAL = """
import json, os, sys, time
with open(sys.argv[2], "a") as file:
    file.write(json.dumps([os.environ["RAZORDEPLOY_TRIAL_DIR"], float(sys.argv[1])]) + chr(10))
for step in range(4):
    time.sleep(float(sys.argv[3]))
    print(json.dumps({"step": step, "score": float(sys.argv[1])}), flush=True)
"""
TASK = """
task: {{template: "{{python}} -S {script} {{x}} {count} {nap}"}}
search_args: {{x: {{type: Real, low: 0, high: 1}}}}
reward_attribute: score
searcher: Random
executor: {executor}
scheduler: {{parallel_size: 2, stop_criterion: {{max_tries: {tries}}}}}
"""


class Watched:
    """A study in a process of its own, whose trials write down that they ran."""

    def __init__(self, folder: Path, executor: str, tries: int, nap: float) -> None:
        self.folder, self.tries = folder / "w", tries
        self.count = folder / "count"
        script = folder / "trial.py"
        script.write_text(TRIAL)
        text = TASK.format(script=script, count=self.count, nap=nap, executor=executor, tries=tries)
        (folder / "hpo.yaml").write_text(text)
        self.ended: dict[str, str] = {}

    def start(self) -> subprocess.Popen[bytes]:
        """Start the study, or go on with it."""
        command = [sys.executable, "-m", "razordeploy.cli.main", "hpo", "run", str(self.folder.parent / "hpo.yaml")]
        command += ["--work-dir", str(self.folder)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def check(self) -> None:
        """Hold what had ended before against what is there now."""
        found = {path.parent.name: path.read_text() for path in self.folder.glob("trials/*/result.json")}
        assert self.ended.items() <= found.items(), "a trial that had ended is gone or has changed"
        self.ended = found

    def finish(self) -> str:
        """Go on until the study has ended, and check the whole history."""
        for _ in range(5):
            if self.start().wait(timeout=300) == 0:
                break
        self.check()
        study = read_study(self.folder)
        assert len(study.trials) == self.tries, f"{len(study.trials)} trials of {self.tries}"
        ends: dict[int, int] = {}
        for line in (self.folder / "study.journal").read_text().splitlines():
            entry = json.loads(line)
            if entry.get("op_code") == 6 and entry.get("state") in (1, 2, 3):
                ends[entry["trial_id"]] = ends.get(entry["trial_id"], 0) + 1
        assert sorted(ends) == list(range(self.tries)), "a trial never ended in the storage"
        assert set(ends.values()) == {1}, "a trial ended twice in the storage"
        values: dict[str, set[float]] = {}
        for line in self.count.read_text().splitlines():
            trial, x = json.loads(line)
            values.setdefault(trial, set()).add(x)
        assert all(len(one) == 1 for one in values.values()), "a trial ran again with other values"
        return ", ".join(f"{count} {status}" for status, count in study.counts().items())


def _children(parent: int) -> list[int]:
    """Processes that any of the parent's threads has started."""
    return [int(pid) for file in Path(f"/proc/{parent}/task").glob("*/children") for pid in file.read_text().split()]


def kill(options: argparse.Namespace) -> bool:
    """kill -9 of the study's process, of a worker, and of a Ray node, at random points."""
    source = random.Random(options.first)
    for what in ("node",) if options.ray else ("parent", "worker"):
        kills, summaries = 0, []
        while kills < options.rounds:
            with tempfile.TemporaryDirectory() as folder:
                done, summary = _kill_some(what, Path(folder), source)
            kills += done
            summaries.append(summary)
            print(f"  {kills} kills so far: {summary}", file=sys.stderr, flush=True)
        print(
            f"kill -9 of the {what}, {kills} times in {len(summaries)} studies: nothing that had ended was lost, "
            f"nothing counted twice ({'; '.join(summaries)})"
        )
    return True


def _kill_some(what: str, folder: Path, source: random.Random) -> tuple[int, str]:
    if what == "node":
        return _kill_nodes(folder, source)
    study = Watched(folder, "local", 16, 0.05)
    kills = 0
    for _ in range(4):
        process = study.start()
        time.sleep(source.uniform(0.6, 2.5))
        if process.poll() is None and study.folder.exists():
            victims = [process.pid] if what == "parent" else _children(process.pid)
            if victims:
                os.kill(source.choice(victims), signal.SIGKILL)
                kills += 1
        if what == "parent":
            process.wait()
        else:
            process.wait(timeout=120)
        study.check()
        if process.returncode == 0:
            break
    return kills, study.finish()


def _new_node(cluster: Any) -> Any:
    for _ in range(3):
        try:
            return cluster.add_node(num_cpus=1)
        except Exception as error:  # a busy machine: Ray gives a node 30 s to start
            print(f"  a node did not start: {error}", file=sys.stderr)
    raise SystemExit("no node starts")


def _kill_nodes(folder: Path, source: random.Random) -> tuple[int, str]:
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    study = Watched(folder, f"{{type: ray, address: '{cluster.address}'}}", 20, 0.3)
    process = study.start()
    kills = 0
    try:
        while process.poll() is None and kills < 5:
            time.sleep(source.uniform(2.0, 5.0))
            victim = nodes.pop(source.randrange(len(nodes)))
            if process.poll() is None:
                os.kill(victim.all_processes["raylet"][0].process.pid, signal.SIGKILL)
                kills += 1
                study.check()
            nodes.append(_new_node(cluster))
        process.wait(timeout=300)
        return kills, study.finish()
    finally:
        process.kill()
        cluster.shutdown()


PARTS = {"kill": kill, "searchers": searchers, "assessors": assessors, "overhead": overhead, "workers": workers}


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--gaussian", action="store_true", help="the Gaussian process too: a minute a study")
    parser.add_argument("--ray", action="store_true", help="kill Ray nodes instead")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.exit(0 if PARTS[options.part](options) else 1)


if __name__ == "__main__":
    main()
