"""Two processes: one draw, and the gradients and statistics of one process on both batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from razordeploy.subnet.agree import agree
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.pruners import GroupFisherChannelMutator

from .nets import ConvNet


@pytest.fixture(scope="module")
def ranks(template, tmp_path_factory):
    """What two processes found, and what they were given."""
    directory = tmp_path_factory.mktemp("ranks")
    units = template["channel_unit_cfg"]["units"]
    fisher_units = {
        name: {**entry, "init_args": {"num_channels": entry["init_args"]["num_channels"], "mutate_linear": True}}
        for name, entry in units.items()
    }
    given = {
        "config": {"channel_unit_cfg": {"units": units}, "parse_cfg": {"type": "Config"}},
        "fisher_config": {"channel_unit_cfg": {"units": fisher_units}, "parse_cfg": {"type": "Config"}},
        "x": torch.randn(8, 3, 8, 8),
        "y": torch.randn(8, 4),
    }
    torch.save(given, directory / "given.pt")
    worker = Path(__file__).with_name("rank.py")
    command = [sys.executable, str(worker)]
    both = [
        subprocess.Popen([*command, str(rank), str(directory)], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(errors)
    return given, [torch.load(directory / f"{rank}.pt") for rank in range(2)]


def test_without_processes_it_is_a_call():
    assert agree(lambda: 3) == 3


@pytest.mark.parametrize("what", ["number", "paths", "one_hot", "gumbel", "channels"])
def test_ranks_draw_alike(ranks, what):
    _, (first, second) = ranks
    assert first[what] == second[what]
    if isinstance(first[what], list):
        assert len({str(draw) for draw in first[what]}) > 1


def test_ranks_train_one_function(ranks):
    given, (first, second) = ranks
    torch.manual_seed(0)
    model = ConvNet().eval()
    mutator = ChannelMutator(**given["config"])
    mutator.prepare_from_supernet(model)
    mutator.set_choices(first["channels"][-1])
    model(given["x"]).sub(given["y"]).square().mean().backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for result in (first, second):
        assert result["gradients"].keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(result["gradients"][name], gradient, atol=1e-6, rtol=1e-4)


def test_fisher_information_is_of_all_processes(ranks):
    given, (first, second) = ranks
    torch.manual_seed(0)
    model = ConvNet().eval()
    mutator = GroupFisherChannelMutator(**given["fisher_config"])
    mutator.prepare_from_supernet(model)
    mutator.start_record_info()
    model(given["x"].clone().requires_grad_()).square().sum().backward()
    mutator.update_imp()
    for unit in mutator.mutable_units:
        torch.testing.assert_close(first["fisher"][unit.name], unit.normalized_fisher_info, rtol=1e-4, atol=1e-9)
        assert torch.equal(first["fisher"][unit.name], second["fisher"][unit.name])
