"""Every pruning algorithm at a quarter of the multiply-adds, against L1 and against the same shape from scratch.

    python tools/bench/pruning.py [--data digits|cifar10] [--seeds 5] [--epochs 8] [--subset 2000] [--json F]

For each seed a float network is trained for ``epochs``. L1, RatioPruner and Group Fisher start from it and train for
``epochs`` more; DCFF, slimmable networks, AutoSlim and DMCP start from scratch and train for twice as long (AutoSlim
and DMCP run four subnets a step, a slimmable network two, so that their epochs cost more). Group Fisher has batches of
16, others of 64: it removes one channel a step. AutoSlim's subnet is found by greedy slimming on 300 training images
and, like DMCP's, only has its batch norms recalibrated. ``scratch`` is the
shape that the algorithm has found, trained from random weights for twice ``epochs``: the budget of the pruned network
and of the one it came from together. Accuracies are top-1 in percent on the test split, mean and standard deviation
over seeds. Latencies are of the int8 engine, batch 1, milliseconds, of the first seed's network; ``unpruned`` is the
float network trained for twice ``epochs``.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

SHARE = 0.255
"""Multiply-adds that are left, as a share of all: what half of every width leaves of the digits' network."""


class Task:
    """Data, network and sizes."""

    def __init__(self, name: str, subset: int) -> None:
        from razordeploy.data.cifar10_npz import Cifar10Npz
        from razordeploy.data.digits import Digits

        kind: Any = Digits if name == "digits" else Cifar10Npz
        self.shape = (1, 8, 8) if name == "digits" else (3, 32, 32)
        module = "razordeploy.models.digits:resnet8" if name == "digits" else "razordeploy.models.cifar:resnet20"
        self.architecture = {"type": module}
        self.head = "linear"
        self.lr = 4e-3
        self.train_data: Any = held(kind(split="train"), subset if name != "digits" else None)
        self.test = held(kind(split="test"), 2000 if name != "digits" else None)
        self.parse = {"type": "ChannelAnalyzer", "demo_input": (1, *self.shape)}

    def network(self) -> nn.Module:
        """A fresh network."""
        from razordeploy.capture.factory import resolve_factory

        module: nn.Module = resolve_factory(self.architecture["type"], Path())()
        return module


class Held(Dataset[Any]):
    """Samples in memory, under the name of where they come from."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], int(self.labels[index])


def held(source: Any, count: int | None) -> Held:
    """The first ``count`` samples of an even spread over ``source``, decoded once."""
    step = 1 if count is None else max(1, len(source) // count)
    samples = [source[index] for index in range(0, len(source), step)][:count]
    return Held(torch.stack([x for x, _ in samples]), torch.tensor([y for _, y in samples]))


def train(algorithm: Any, model: nn.Module, task: Task, seed: int, epochs: int, **options: Any) -> None:
    """Train ``algorithm``, silently."""
    from razordeploy.compress.algorithm.hooks import ScheduleHook
    from razordeploy.train.classifier import ShiftAndFlip
    from razordeploy.train.runner import train_source

    algorithm.data_preprocessor = ShiftAndFlip(shift=1)
    hooks = [ScheduleHook()] if hasattr(algorithm, "schedule") else []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        train_source(
            algorithm,
            model,
            task.train_data,
            work_dir=folder,
            checkpoint="x.pth",
            epochs=epochs,
            seed=seed,
            threads=1,
            hooks=hooks,
            **{"lr": task.lr, **options},
        )
    algorithm.eval()


def fit(network: nn.Module, task: Task, seed: int, epochs: int) -> nn.Module:
    """Train a plain network."""
    from razordeploy.train.classifier import Classifier

    torch.manual_seed(seed)
    train(Classifier(network), network, task, seed, epochs)
    return network.eval()


def fresh(network: nn.Module, seed: int) -> nn.Module:
    """A copy of the same shape with new weights."""
    made = copy.deepcopy(network)
    torch.manual_seed(seed)
    for module in made.modules():
        reset: Any = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    return made


@torch.no_grad()
def top1(network: nn.Module, data: Held) -> float:
    """Accuracy in percent."""
    found = torch.cat([network(part) for part in data.images.split(500)]).argmax(1)
    return 100 * float((found == data.labels).float().mean())


def mutator(task: Task, kind: str, unit: str, **arguments: Any) -> dict[str, Any]:
    """Config of a mutator."""
    return {
        "type": kind,
        "channel_unit_cfg": {"type": unit, "default_args": arguments},
        "parse_cfg": task.parse,
    }


def distiller(task: Task) -> dict[str, Any]:
    """In-place distillation of the logits."""
    record = {"fc": {"type": "ModuleOutputs", "source": task.head}}
    sides = {f"preds_{side}": {"recorder": "fc", "from_student": side == "S"} for side in "ST"}
    return {
        "student_recorders": record,
        "teacher_recorders": record,
        "distill_losses": {"loss_kl": {"type": "KLDivergence"}},
        "loss_forward_mappings": {"loss_kl": sides},
    }


def pruned(
    task: Task, kind: str, network: nn.Module, seed: int, epochs: int, training: Any = None, **options: Any
) -> nn.Module:
    """The static network of an algorithm that decides while it trains."""
    from razordeploy.compress.pruning.algorithms.table import ALGORITHMS
    from razordeploy.compress.pruning.result import sliced

    torch.manual_seed(seed)
    algorithm = ALGORITHMS[kind](network, **options)
    train(algorithm, algorithm.architecture, task, seed, epochs, **(training or {}))
    algorithm.settle()
    return sliced(algorithm)[1].eval()


def l1(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """Half of every unit by L1, at once."""
    config = mutator(task, "ChannelMutator", "L1MutableChannelUnit", choice_mode="ratio")
    return pruned(task, "ItePruneAlgorithm", base, seed, epochs, mutator=config, target_pruning_ratio=0.5)


def ratio(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """Half of every unit, in multiples of 4."""
    return pruned(task, "RatioPruner", base, seed, epochs, mutator={"parse_cfg": task.parse}, ratio=0.5, divisor=4)


def group_fisher(task: Task, base: nn.Module, seed: int, epochs: int, by: str) -> nn.Module:
    """One channel after another, in the first half of the steps."""
    from razordeploy.compress.pruning.algorithms.group_fisher import GroupFisherAlgorithm

    config = mutator(
        task, "GroupFisherChannelMutator", "GroupFisherChannelUnit", normalization_type=by, mutate_linear=True
    )
    units = GroupFisherAlgorithm(copy.deepcopy(base), config).mutator.mutable_units
    # One channel a step at most: small batches make more steps of as many epochs.
    batch_size = 16
    steps = epochs * (len(task.train_data) // batch_size)
    interval = max(1, int(steps / 2 / (0.6 * sum(unit.num_channels for unit in units))))
    options = {"mutator": config, "interval": interval, "target_flop_ratio": SHARE}
    return pruned(task, "GroupFisherAlgorithm", base, seed, epochs, {"batch_size": batch_size, "lr": 1e-3}, **options)


def dcff(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """Half of every unit, fused, from scratch."""
    config = mutator(task, "DCFFChannelMutator", "DCFFChannelUnit", choice_mode="ratio")
    return pruned(task, "DCFF", fresh(base, seed), seed, 2 * epochs, mutator=config, target_pruning_ratio=0.5)


def slimmable(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """The narrow one of two widths that are trained together."""
    from razordeploy.compress.pruning.algorithms.slimmable import SlimmableNetwork
    from razordeploy.compress.pruning.result import sliced

    arguments = {"candidate_choices": [0.5, 1.0], "choice_mode": "ratio"}
    config = mutator(task, "SlimmableChannelMutator", "SlimmableChannelUnit", **arguments)
    algorithm = SlimmableNetwork(fresh(base, seed), config)
    train(algorithm, algorithm.architecture, task, seed, 2 * epochs)
    algorithm.mutator.switch(0)
    return sliced(algorithm)[1].eval()


def recalibrated(network: nn.Module, task: Task) -> nn.Module:
    """The network with batch norms of 512 training images."""
    from razordeploy.compress.algorithm.plain import as_plain
    from razordeploy.compress.nas.recalibrate import recalibrate

    as_plain(network)
    recalibrate(network, task.train_data.images[:512].split(128))
    return network.eval()


def autoslim(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """A supernet, slimmed greedily on training images that recalibration does not see."""
    from razordeploy.compress.nas.search.greedy import GreedySearch
    from razordeploy.compress.nas.search.limits import Bounded
    from razordeploy.compress.nas.search.scored import Scored
    from razordeploy.compress.nas.search.space import SearchSpace
    from razordeploy.compress.pruning.algorithms.autoslim import AutoSlim
    from razordeploy.compress.pruning.result import sliced

    arguments = {"candidate_choices": [0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0], "choice_mode": "ratio"}
    config = mutator(task, "OneShotChannelMutator", "OneShotMutableChannelUnit", **arguments)
    algorithm = AutoSlim(fresh(base, seed), config, distiller(task))
    train(algorithm, algorithm.architecture, task, seed, 2 * epochs)
    costs = algorithm.costs
    whole = costs.mega_macs(costs.whole)
    space = SearchSpace.of_mutator(algorithm.mutator)
    bounded = Bounded(space, lambda subnet: {"macs": costs.mega_macs(costs.of_choices(subnet))})
    search = GreedySearch(bounded, targets=[SHARE * whole])
    scorers = Held(task.train_data.images[-300:], task.train_data.labels[-300:])

    def subnet(choices: Any) -> nn.Module:
        algorithm.set_subnet(choices)
        return recalibrated(sliced(algorithm)[1], task)

    while asked := search.ask():
        search.tell([Scored(subnet=one, score=top1(subnet(one), scorers), costs=bounded.costs(one)) for one in asked])
    return subnet(next(iter(search.found.values())).subnet)


def dmcp(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """Widths learned as Markov processes."""
    from razordeploy.compress.algorithm.optim import SeparateOptimWrapperConstructor
    from razordeploy.compress.pruning.algorithms.dmcp import DMCP
    from razordeploy.compress.pruning.result import sliced

    config = {**mutator(task, "DMCPChannelMutator", "DMCPChannelUnit"), "pruning_cfg": (0.125, 1.0, 0.125)}
    steps = 2 * epochs * (len(task.train_data) // 64)
    options = {"arch_start_train": steps // 5, "arch_train_freq": 1, "distillation_times": steps // 5}
    algorithm = DMCP(fresh(base, seed), distiller(task), config, flop_loss_weight=0.5, target_flops=1.0, **options)
    algorithm.target_flops = SHARE * algorithm.costs.mega_macs(algorithm.costs.whole)
    optimizers = {
        "constructor": SeparateOptimWrapperConstructor,
        "architecture": {"optimizer": {"type": "AdamW", "lr": task.lr, "weight_decay": 0.01}},
        "mutator": {"optimizer": {"type": "Adam", "lr": 0.02}},
    }
    train(algorithm, algorithm.architecture, task, seed, 2 * epochs, optim_wrapper=optimizers)
    algorithm.settle()
    return recalibrated(sliced(algorithm)[1], task)


METHODS: dict[str, Callable[..., nn.Module]] = {
    "L1": l1,
    "RatioPruner": ratio,
    "GroupFisher act": lambda *given: group_fisher(*given, by="act"),
    "GroupFisher flops": lambda *given: group_fisher(*given, by="flops"),
    "DCFF": dcff,
    "Slimmable": slimmable,
    "AutoSlim": autoslim,
    "DMCP": dmcp,
}


def macs(network: nn.Module, task: Task) -> int:
    """Multiply-adds of one sample."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, *task.shape))
    return int(counter.get_total_flops() // 2)


def latency(network: nn.Module, task: Task) -> float:
    """Median of the int8 OpenVINO engine, batch 1, in ms."""
    import razordeploy as rd

    images = task.train_data.images[:256]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        made = rd.ptq(network, images.split(64), example_inputs=(images[:1],), backend="openvino", out_dir=folder)
        return float(rd.load_engine(made).benchmark(batch=1, seconds=2).p50_ms)


def compare(task: Task, seeds: int, epochs: int, names: list[str]) -> Iterator[dict[str, Any]]:
    """One row per method."""
    rows: dict[str, dict[str, Any]] = {name: {"method": name, "top1": [], "scratch": []} for name in names}
    unpruned: dict[str, Any] = {"method": "unpruned", "top1": [], "scratch": []}
    for seed in range(seeds):
        torch.manual_seed(seed)
        base = fit(task.network(), task, seed, epochs)
        whole = fit(fresh(base, seed), task, seed, 2 * epochs)
        unpruned["top1"].append(top1(whole, task.test))
        if seed == 0:
            unpruned |= {"macs": macs(whole, task), "int8_ms": latency(whole, task)}
        known: dict[str, float] = {}
        for name in names:
            small = METHODS[name](task, copy.deepcopy(base), seed, epochs)
            row = rows[name]
            row["top1"].append(top1(small, task.test))
            shape = str([tuple(p.shape) for p in small.parameters()])
            if shape not in known:
                known[shape] = top1(fit(fresh(small, seed), task, seed, 2 * epochs), task.test)
            row["scratch"].append(known[shape])
            row.setdefault("shares", []).append(macs(small, task) / macs(whole, task))
            if seed == 0:
                row["int8_ms"] = latency(small, task)
            print(f"  seed {seed} {name}: {row['top1'][-1]:.2f}, scratch {row['scratch'][-1]:.2f}", flush=True)
    yield unpruned
    yield from rows.values()


def cell(values: list[float]) -> str:
    """Mean and standard deviation."""
    if not values:
        return "-"
    return f"{statistics.mean(values):.2f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--subset", type=int, default=2000, help="training images of CIFAR-10")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    task = Task(options.data, options.subset)
    rows = list(compare(task, options.seeds, options.epochs, options.methods.split(",")))
    reference = next((row["top1"] for row in rows if row["method"] == "L1"), [])
    print(f"{options.data}: {options.seeds} seeds, {options.epochs} + {options.epochs} epochs")
    print(f"{'':18s}{'macs':>7s}{'top-1':>16s}{'scratch':>16s}{'- scratch':>11s}{'- L1':>8s}{'int8 ms':>9s}")
    for row in rows:
        share = statistics.mean(row["shares"]) if "shares" in row else 1.0
        mean = statistics.mean(row["top1"])
        behind = f"{mean - statistics.mean(row['scratch']):+.2f}" if row["scratch"] else "-"
        to_l1 = f"{mean - statistics.mean(reference):+.2f}" if reference else "-"
        scores = f"{cell(row['top1']):>16s}{cell(row['scratch']):>16s}"
        print(f"{row['method']:18s}{share:7.1%}{scores}{behind:>11s}{to_l1:>8s}{row['int8_ms']:9.4f}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
