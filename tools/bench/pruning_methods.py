"""How each pruning algorithm makes a network of a quarter of the multiply-adds, as its paper trains it."""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.data import Dataset

SHARE = 0.255
"""Multiply-adds that are left, as a share of all: what half of every width leaves of the networks here."""
SCORERS = 300
"""Training images on which greedy slimming compares subnets; the supernet has not seen them."""


class Task:
    """Data, network and sizes; images of CIFAR-10 are averaged to 16 x 16 pixels."""

    def __init__(self, name: str, subset: int) -> None:
        from razordeploy.data.cifar10_npz import Cifar10Npz
        from razordeploy.data.digits import Digits

        kind: Any = Digits if name == "digits" else Cifar10Npz
        self.shape = (1, 8, 8) if name == "digits" else (3, 16, 16)
        self.shift = 1 if name == "digits" else 2
        self.head = "linear"
        self.lr = 4e-3
        self.train_data: Any = held(kind(split="train"), subset if name != "digits" else None)
        self.test = held(kind(split="test"), 4000 if name != "digits" else None)
        self.parse = {"type": "ChannelAnalyzer", "demo_input": (1, *self.shape)}

    def network(self) -> nn.Module:
        """A fresh network: eight weighted layers, three stages of 16, 32 and 64 channels."""
        from razordeploy.models.digits import resnet8

        made = resnet8()
        if self.shape[0] != 1:
            made.conv1 = nn.Conv2d(self.shape[0], 16, 3, padding=1, bias=False)
        return made


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
    samples = [source[index] for index in range(0, len(source), step)[:count]]
    images = torch.stack([x for x, _ in samples])
    if images.shape[-1] > 16:
        images = nn.functional.adaptive_avg_pool2d(images, 16)
    return Held(images, torch.tensor([y for _, y in samples]))


def train(algorithm: Any, model: nn.Module, task: Task, seed: int, epochs: int, **options: Any) -> None:
    """Train ``algorithm`` with a learning rate that falls from its value to zero, silently."""
    from razordeploy.compress.algorithm.hooks import ScheduleHook
    from razordeploy.train.classifier import ShiftAndFlip
    from razordeploy.train.runner import train_source

    algorithm.data_preprocessor = ShiftAndFlip(task.shift, flip=task.shape[0] == 3)
    hooks = [ScheduleHook()] if hasattr(algorithm, "schedule") else []
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        train_source(
            algorithm,
            model,
            options.pop("source", task.train_data),
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
    """One channel after another in the first half of the epochs, then training with a schedule of its own."""
    from razordeploy.compress.pruning.algorithms.group_fisher import GroupFisherAlgorithm

    config = mutator(
        task, "GroupFisherChannelMutator", "GroupFisherChannelUnit", normalization_type=by, mutate_linear=True
    )
    units = GroupFisherAlgorithm(copy.deepcopy(base), config).mutator.mutable_units
    # One channel a step at most: small batches make more steps of as many epochs.
    batch_size = 16
    steps = epochs // 2 * (len(task.train_data) // batch_size)
    interval = max(1, int(steps / (0.6 * sum(unit.num_channels for unit in units))))
    options = {"mutator": config, "interval": interval, "target_flop_ratio": SHARE}
    training = {"batch_size": batch_size, "lr": 1e-3}
    small = pruned(task, "GroupFisherAlgorithm", base, seed, epochs // 2, training, **options)
    return fit(small, task, seed, epochs - epochs // 2)


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
    """The network with batch norms of 256 training images."""
    from razordeploy.compress.algorithm.plain import as_plain
    from razordeploy.compress.nas.recalibrate import recalibrate

    as_plain(network)
    recalibrate(network, task.train_data.images[:256].split(64))
    return network.eval()


def autoslim(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """A supernet, slimmed greedily on training images that it has not seen; what is found is trained on."""
    from razordeploy.compress.nas.search.greedy import GreedySearch
    from razordeploy.compress.nas.search.limits import Bounded
    from razordeploy.compress.nas.search.scored import Scored
    from razordeploy.compress.nas.search.space import SearchSpace
    from razordeploy.compress.pruning.algorithms.autoslim import AutoSlim
    from razordeploy.compress.pruning.result import sliced

    arguments = {"candidate_choices": [0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0], "choice_mode": "ratio"}
    config = mutator(task, "OneShotChannelMutator", "OneShotMutableChannelUnit", **arguments)
    algorithm = AutoSlim(fresh(base, seed), config, distiller(task))
    images, labels = task.train_data.images, task.train_data.labels
    seen, scorers = Held(images[:-SCORERS], labels[:-SCORERS]), Held(images[-SCORERS:], labels[-SCORERS:])
    train(algorithm, algorithm.architecture, task, seed, epochs, source=seen)
    costs = algorithm.costs
    whole = costs.mega_macs(costs.whole)
    space = SearchSpace.of_mutator(algorithm.mutator)
    bounded = Bounded(space, lambda subnet: {"macs": costs.mega_macs(costs.of_choices(subnet))})
    search = GreedySearch(bounded, targets=[SHARE * whole])

    def subnet(choices: Any) -> nn.Module:
        algorithm.set_subnet(choices)
        return recalibrated(sliced(algorithm)[1], task)

    while asked := search.ask():
        search.tell([Scored(subnet=one, score=top1(subnet(one), scorers), costs=bounded.costs(one)) for one in asked])
    return fit(subnet(next(iter(search.found.values())).subnet), task, seed, epochs)


def dmcp(task: Task, base: nn.Module, seed: int, epochs: int) -> nn.Module:
    """Widths learned as Markov processes; the subnet of their means is trained on."""
    from razordeploy.compress.algorithm.optim import SeparateOptimWrapperConstructor
    from razordeploy.compress.pruning.algorithms.dmcp import DMCP
    from razordeploy.compress.pruning.result import sliced

    config = {**mutator(task, "DMCPChannelMutator", "DMCPChannelUnit"), "pruning_cfg": (0.125, 1.0, 0.125)}
    steps = epochs * (len(task.train_data) // 64)
    options = {"arch_start_train": steps // 5, "arch_train_freq": 1, "distillation_times": steps // 5}
    algorithm = DMCP(fresh(base, seed), distiller(task), config, flop_loss_weight=0.5, target_flops=1.0, **options)
    algorithm.target_flops = SHARE * algorithm.costs.mega_macs(algorithm.costs.whole)
    optimizers = {
        "constructor": SeparateOptimWrapperConstructor,
        "architecture": {"optimizer": {"type": "AdamW", "lr": task.lr, "weight_decay": 0.01}},
        "mutator": {"optimizer": {"type": "Adam", "lr": 0.02}},
    }
    train(algorithm, algorithm.architecture, task, seed, epochs, optim_wrapper=optimizers)
    algorithm.settle()
    return fit(recalibrated(sliced(algorithm)[1], task), task, seed, epochs)


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
