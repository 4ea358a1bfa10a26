"""Two processes: one draw, and the gradients of one process on both batches."""

from __future__ import annotations

import random

import pytest
import torch
from torch import distributed, multiprocessing, nn

from razordeploy.subnet.agree import agree
from razordeploy.subnet.mutables.diff_module import OneHotMutableOP
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.dmcp import DMCPChannelMutator
from razordeploy.subnet.mutators.nas import NasMutator
from razordeploy.subnet.mutators.pruners import GroupFisherChannelMutator


class Paths(nn.Module):
    def __init__(self):
        super().__init__()
        from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP

        operations = {name: nn.Linear(4, 4) for name in "abcdefgh"}
        self.layers = nn.ModuleList(OneShotMutableOP(nn.ModuleDict(operations)) for _ in range(4))


def _worker(rank, port, config, directory):
    from .nets import ConvNet

    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    # Ranks that have drawn differently before: their generators are not in step.
    random.seed(rank)
    torch.manual_seed(rank)
    result = {"draw": agree(lambda: random.random())}

    nas = NasMutator()
    nas.prepare_from_supernet(Paths())
    result["paths"] = [nas.sample_choices() for _ in range(3)]

    torch.manual_seed(0)
    model = ConvNet().eval()
    torch.manual_seed(rank)
    mutator = DMCPChannelMutator(**config, pruning_cfg=(0.25, 1.0, 0.25))
    mutator.prepare_from_supernet(model)
    for parameter in mutator.arch_params.values():
        parameter.data.fill_(0.5)
    result["channels"] = [mutator.sample_choices(), mutator.sample_subnet("random"), mutator.sample_subnet("direct")]

    one_hot = OneHotMutableOP(nn.ModuleDict({name: nn.Identity() for name in "abcdefgh"}))
    probs = torch.full((8,), 0.125)
    result["one_hot"] = [int(one_hot.sample_weights(probs, probs).argmax()) for _ in range(5)]

    x, y = torch.load(f"{directory}/batch.pt")
    wrapped = nn.parallel.DistributedDataParallel(model)
    wrapped(x[rank * 4 : rank * 4 + 4]).sub(y[rank * 4 : rank * 4 + 4]).square().mean().backward()
    result["gradients"] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    result["choices"] = mutator.current_choices
    torch.save(result, f"{directory}/{rank}.pt")
    distributed.destroy_process_group()


def _fisher(rank, port, config, directory):
    from .nets import ConvNet

    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = ConvNet().eval()
    mutator = GroupFisherChannelMutator(**config)
    mutator.prepare_from_supernet(model)
    x, _ = torch.load(f"{directory}/batch.pt")
    mutator.start_record_info()
    model(x[rank * 4 : rank * 4 + 4].requires_grad_()).square().sum().backward()
    mutator.update_imp()
    torch.save({unit.name: unit.normalized_fisher_info for unit in mutator.mutable_units}, f"{directory}/{rank}.pt")
    distributed.destroy_process_group()


def _port():
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _run(worker, config, directory):
    torch.save((torch.randn(8, 3, 8, 8), torch.randn(8, 4)), directory / "batch.pt")
    multiprocessing.spawn(worker, (_port(), config, str(directory)), nprocs=2)
    return [torch.load(directory / f"{rank}.pt") for rank in range(2)]


def test_without_processes_it_is_a_call():
    assert agree(lambda: 3) == 3


@pytest.mark.timeout(120)
def test_ranks_draw_alike_and_train_one_function(config, tmp_path):
    from .nets import ConvNet

    first, second = _run(_worker, config(), tmp_path)
    for key in ("draw", "paths", "channels", "one_hot", "choices"):
        assert first[key] == second[key], key
    assert len({str(choices) for choices in first["paths"]}) == 3

    torch.manual_seed(0)
    model = ConvNet().eval()
    mutator = ChannelMutator(**config())
    mutator.prepare_from_supernet(model)
    mutator.set_choices(first["choices"])
    x, y = torch.load(tmp_path / "batch.pt")
    model(x).sub(y).square().mean().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            for result in (first, second):
                torch.testing.assert_close(result["gradients"][name], parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.timeout(120)
def test_fisher_information_is_of_all_processes(config, tmp_path):
    from .nets import ConvNet

    given = config("GroupFisherChannelUnit", {"mutate_linear": True})
    first, second = _run(_fisher, given, tmp_path)
    torch.manual_seed(0)
    model = ConvNet().eval()
    mutator = GroupFisherChannelMutator(**given)
    mutator.prepare_from_supernet(model)
    x, _ = torch.load(tmp_path / "batch.pt")
    mutator.start_record_info()
    model(x.requires_grad_()).square().sum().backward()
    mutator.update_imp()
    for unit in mutator.mutable_units:
        torch.testing.assert_close(first[unit.name], unit.normalized_fisher_info, rtol=1e-4, atol=1e-9)
        assert torch.equal(first[unit.name], second[unit.name])
