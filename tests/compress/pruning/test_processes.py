"""Two processes train one supernet: the same subnets, the gradient of the whole batch, one set of weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from razordeploy.subnet.fix import load_fix_subnet
from tests.compress.distill.tiny import tiny
from tests.compress.pruning.processes import CASES, gradients_of_step, prepared

RECIPE = """
model = dict(
    type="ItePruneAlgorithm",
    architecture=dict(type="tests.compress.distill.tiny:tiny"),
    mutator_cfg=dict(
        type="ChannelMutator",
        channel_unit_cfg=dict(type="L1MutableChannelUnit"),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8)),
    ),
    target_pruning_ratio=0.5,
)
data = dict(type="tests.compress.distill.tiny:samples")
train = dict(epochs=1, batch_size=8, lr=0.01, threads=1)
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, channels):
    directory = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.save({"channels": channels, "port": port}, directory / "given.pt")
    (directory / "recipe.py").write_text(RECIPE)
    script = Path(__file__).with_name("rank.py")
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(directory)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            cwd=directory,
            env=environment,
        )
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=240)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], "\n".join(errors)
    return directory, [torch.load(directory / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_the_whole_batch(ranks, channels, name):
    first, second = (found[name] for found in ranks[1])
    assert first["subnets"] == second["subnets"]
    assert first["gradients"].keys() == second["gradients"].keys()
    halves = []
    for rank in range(2):
        algorithm = prepared(name, channels)
        _replay(algorithm, first["subnets"])
        halves.append(gradients_of_step(algorithm, algorithm, rank))
    assert halves[0]["subnets"] == first["subnets"]
    for key, gradient in first["gradients"].items():
        assert torch.equal(gradient, second["gradients"][key])
        expected = (halves[0]["gradients"][key] + halves[1]["gradients"][key]) / 2
        torch.testing.assert_close(gradient, expected, atol=2e-6, rtol=1e-4)


def test_information_is_of_both_halves(ranks):
    first, second = (found["GroupFisherAlgorithm"]["info"] for found in ranks[1])
    assert all(torch.equal(mine, its) and bool(mine.any()) for mine, its in zip(first, second, strict=True))


def test_a_run_of_two_processes_writes_one_subnet(ranks):
    directory, (first, second) = ranks
    assert first["trained"].keys() == tiny().state_dict().keys()
    assert all(torch.equal(first["trained"][key], second["trained"][key]) for key in first["trained"])
    model = tiny().eval()
    model.load_state_dict(first["trained"])
    small = load_fix_subnet(model, directory / "run" / "fix_subnet.yaml")
    small.load_state_dict(torch.load(directory / "run" / "fix_subnet_weight.pth", weights_only=True), strict=True)
    assert small.conv1.out_channels == 2


def _replay(algorithm, subnets):
    """Let the algorithm draw what the processes drew."""
    if type(algorithm).__name__ == "AutoSlim":
        queue = iter(subnets[1:-1])
        algorithm.mutator.sample_choices = lambda: {
            name: number / algorithm.mutator.unit(name).num_channels for name, number in next(queue).items()
        }
    if type(algorithm).__name__ == "DMCP":
        queue = iter(subnets)
        original = algorithm.mutator.sample_subnet

        def sample_subnet(mode, arch_train=False):
            choices = next(queue)
            if mode == "max":
                return original(mode, arch_train)
            algorithm.mutator.set_choices(choices)
            algorithm.mutator.modify_supernet_forward(arch_train)
            return choices

        algorithm.mutator.sample_subnet = sample_subnet
