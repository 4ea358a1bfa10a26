"""Every pruning algorithm at a quarter of the multiply-adds, against L1 and against the same shape from scratch.

    python tools/bench/pruning.py [--data digits|cifar10] [--seeds 5] [--epochs 12] [--subset 2000] [--part 0/2]

For each seed a float network is trained for ``epochs``. L1, RatioPruner and Group Fisher start from it and train for
``epochs`` more (Group Fisher prunes in the first half of them, in batches of 16, others are 64). AutoSlim and DMCP
start from scratch, train a supernet for ``epochs`` (four subnets a step, so that an epoch costs more) and the subnet
that is found for ``epochs`` more; DCFF and slimmable networks (two subnets a step) train from scratch for twice
``epochs``. ``scratch`` is the shape that the algorithm has found, trained from random weights for twice ``epochs``:
the budget of the pruned network and of the one it came from together. CIFAR-10 is a subset of the training images,
averaged to 16 x 16 pixels. Accuracies are top-1 in percent on the test split, mean and standard deviation over seeds.
Latencies are of the int8 engines of the first seed's networks, batch 1, in milliseconds, timed in turns; ``unpruned``
is the network at full width trained for twice ``epochs``.

What is done is kept in ``--cache`` and not done again: a run that was interrupted goes on, and ``--part i/n`` does
every n-th row alone, without a table.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import io
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
from pruning_methods import METHODS, Task, fit, fresh, top1
from torch import nn

from razordeploy.storage import atomic_write

UNPRUNED = "unpruned"


class Rows:
    """Results of one data set and budget, a file each."""

    def __init__(self, task: Task, folder: Path, epochs: int) -> None:
        self.task, self.folder, self.epochs = task, folder, epochs

    def row(self, name: str, seed: int) -> dict[str, Any]:
        """Top-1, that of the same shape from scratch, multiply-adds, and CPU seconds of method and seed."""
        return self._kept(seed, name, lambda: self._measure(name, seed))

    def _measure(self, name: str, seed: int) -> dict[str, Any]:
        base = self._base(seed)
        start = time.process_time()
        if name == UNPRUNED:
            made = fit(fresh(base, seed), self.task, seed, 2 * self.epochs)
        else:
            made = METHODS[name](self.task, copy.deepcopy(base), seed, self.epochs)
        found = {"top1": top1(made, self.task.test), "macs": macs(made, self.task)}
        found["seconds"] = time.process_time() - start
        if seed == 0:
            self._engine(made, name)
        return found if name == UNPRUNED else {**found, "scratch": self._scratch(made, seed)}

    def _kept(self, seed: int, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        file = self.folder / f"seed{seed}" / f"{name.replace(' ', '-')}.json"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(file, json.dumps(measure(), indent=1))
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def _base(self, seed: int) -> nn.Module:
        file = self.folder / f"seed{seed}" / "base.pth"
        torch.manual_seed(seed)
        network = self.task.network()
        if file.exists():
            network.load_state_dict(torch.load(file, weights_only=True))
            return network.eval()
        fit(network, self.task, seed, self.epochs)
        content = io.BytesIO()
        torch.save(network.state_dict(), content)
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, content.getvalue())
        return network

    def _scratch(self, network: nn.Module, seed: int) -> float:
        shape = hashlib.sha256(str([tuple(p.shape) for p in network.parameters()]).encode()).hexdigest()[:12]

        def measure() -> dict[str, Any]:
            return {"top1": top1(fit(fresh(network, seed), self.task, seed, 2 * self.epochs), self.task.test)}

        return float(self._kept(seed, f"scratch-{shape}", measure)["top1"])

    def engine(self, name: str) -> Path:
        """Folder of the int8 engine of the first seed's network."""
        return self.folder / "engines" / name.replace(" ", "-")

    def _engine(self, network: nn.Module, name: str) -> None:
        import razordeploy as rd

        images = self.task.train_data.images[:256]
        with contextlib.redirect_stderr(io.StringIO()):
            rd.ptq(
                network,
                images.split(64),
                example_inputs=(images[:1],),
                backend="openvino",
                out_dir=self.engine(name),
            )


def macs(network: nn.Module, task: Task) -> int:
    """Multiply-adds of one sample."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *task.shape))
    return int(counter.get_total_flops() // 2)


def latencies(rows: Rows, names: list[str], rounds: int = 3) -> dict[str, float]:
    """Median latency in ms of each int8 engine at batch 1, the least of several rounds in turns."""
    import razordeploy as rd

    engines = {name: rd.load_engine(rows.engine(name)) for name in names}
    found = dict.fromkeys(names, float("inf"))
    for _ in range(rounds):
        for name, engine in engines.items():
            found[name] = min(found[name], float(engine.benchmark(batch=1, seconds=0.7).p50_ms))
    return found


def cell(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"


def table(rows: Rows, names: list[str], seeds: int) -> None:
    """Print a line per method."""
    results = {name: [rows.row(name, seed) for seed in range(seeds)] for name in [UNPRUNED, *names]}
    timed = latencies(rows, list(results))
    whole = results[UNPRUNED][0]["macs"]
    by_l1 = [row["top1"] for row in results.get("L1", [])]
    print(
        f"{'':18s}{'macs':>7s}{'top-1':>16s}{'scratch':>16s}{'- scratch':>16s}{'- L1':>16s}{'int8 ms':>9s}{'CPU s':>8s}"
    )
    for name, found in results.items():
        scores = [row["top1"] for row in found]
        scratch = [row["scratch"] for row in found if "scratch" in row]
        cells = [
            cell(scores),
            cell(scratch) if scratch else "-",
            cell([a - b for a, b in zip(scores, scratch, strict=True)]) if scratch else "-",
            cell([a - b for a, b in zip(scores, by_l1, strict=True)])
            if by_l1 and name not in (UNPRUNED, "L1")
            else "-",
        ]
        share = statistics.mean(row["macs"] / whole for row in found)
        spent = statistics.mean(row["seconds"] for row in found)
        line = "".join(f"{text:>16s}" for text in cells)
        print(f"{name:18s}{share:7.1%}{line}{timed[name]:9.4f}{spent:8.1f}", flush=True)


def main() -> None:
    """Print the table, or do a part of the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--subset", type=int, default=2000, help="training images of CIFAR-10")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--cache", type=Path, default=Path("work_dirs/bench_pruning"))
    parser.add_argument("--part", help="i/n: only every n-th row, from the i-th, and no table")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    names = options.methods.split(",")
    size = f"-{options.subset}" if options.data != "digits" else ""
    rows = Rows(
        Task(options.data, options.subset), options.cache / f"{options.data}{size}-{options.epochs}", options.epochs
    )
    part, parts = (int(number) for number in (options.part or "0/1").split("/"))
    for seed in range(options.seeds):
        for index, name in enumerate([UNPRUNED, *names]):
            if index % parts == part:
                print(f"seed {seed} {name}: {rows.row(name, seed)}", flush=True)
    if options.part is None:
        print(f"{options.data}{size}: {options.seeds} seeds, {options.epochs} + {options.epochs} epochs")
        table(rows, names, options.seeds)


if __name__ == "__main__":
    main()
