"""One of two processes of test_agree.py: python rank.py RANK DIRECTORY."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch
from nets import ConvNet, Paths
from torch import distributed, nn

from razordeploy.subnet.agree import agree
from razordeploy.subnet.mutables.choice_route import GumbelChoiceRoute
from razordeploy.subnet.mutables.diff_module import OneHotMutableOP
from razordeploy.subnet.mutators.dmcp import DMCPChannelMutator
from razordeploy.subnet.mutators.nas import NasMutator
from razordeploy.subnet.mutators.pruners import GroupFisherChannelMutator


def draws(config):
    """What a rank draws, through each way of drawing."""
    nas = NasMutator()
    nas.prepare_from_supernet(Paths())
    model = _model()
    mutator = DMCPChannelMutator(**config, pruning_cfg=(0.25, 1.0, 0.25))
    mutator.prepare_from_supernet(model)
    for parameter in mutator.arch_params.values():
        parameter.data.fill_(0.5)
    identities = nn.ModuleDict({name: nn.Identity() for name in "abcdefgh"})
    one_hot, gumbel = OneHotMutableOP(identities), GumbelChoiceRoute(identities, with_arch_param=True)
    even = torch.full((8,), 0.125)
    found = {
        "number": agree(lambda: random.random()),
        "paths": [nas.sample_choices() for _ in range(3)],
        "one_hot": [int(one_hot.sample_weights(even, even).argmax()) for _ in range(5)],
        "gumbel": [int(gumbel.compute_arch_probs(even).argmax()) for _ in range(5)],
        "channels": [mutator.sample_choices(), mutator.sample_subnet("random"), mutator.sample_subnet("direct")],
    }
    return found, model


def gradients(model, rank, x, y):
    """Gradients of the subnet under DistributedDataParallel, each rank on its half of the batch."""
    wrapped = nn.parallel.DistributedDataParallel(model)
    half = slice(rank * 4, rank * 4 + 4)
    wrapped(x[half]).sub(y[half]).square().mean().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def fisher(config, rank, x):
    """Fisher information after a batch of which each rank has a half."""
    mutator = GroupFisherChannelMutator(**config)
    model = _model()
    mutator.prepare_from_supernet(model)
    mutator.start_record_info()
    model(x[rank * 4 : rank * 4 + 4].requires_grad_()).square().sum().backward()
    mutator.update_imp()
    return {unit.name: unit.normalized_fisher_info for unit in mutator.mutable_units}


def _model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvNet().eval()


def main(rank, directory):
    given = torch.load(directory / "given.pt")
    store = distributed.FileStore(str(directory / "store"), 2)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    # Ranks that have drawn differently before: their generators are not in step.
    random.seed(rank)
    torch.manual_seed(rank)
    found, model = draws(given["config"])
    found["gradients"] = gradients(model, rank, given["x"], given["y"])
    found["fisher"] = fisher(given["fisher_config"], rank, given["x"])
    torch.save(found, directory / f"{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
