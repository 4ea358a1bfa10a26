"""The simulation against float64 arithmetic written out by hand, and its record of bits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from razordeploy.backends.academic.backend import BACKEND
from razordeploy.backends.base import ExportJob
from razordeploy.capture.export import capture
from razordeploy.errors import BackendError, DataError
from razordeploy.quantization.placement import OpSettings
from razordeploy.quantization.plan import ObserverSpec
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve


class Net(nn.Module):
    """Convolution, linear and matmul, eight layers that multiply, so that sixteen bit widths fit."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(6))
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        for conv in self.convs:
            x = functional.relu(conv(x))
        x = self.up(x).flatten(2)
        return self.head((x @ x.transpose(1, 2)).mean(1))


def mixed(start=0):
    """Layer i gets ``1 + i % 16`` bits for its input and ``16 - i % 16`` for its weight."""
    spec = BACKEND.spec
    order: dict[str, int] = {}

    def settings(node, kind, rule):
        i = start + order.setdefault(node.name, len(order))
        return OpSettings(
            activation=replace(spec.activation.scheme(), bits=1 + i % 16),
            weight=replace(spec.weight.scheme(rule.axis), bits=16 - i % 16),
            activation_observer=ObserverSpec(type=spec.activation.observer),
            weight_observer=ObserverSpec(type=spec.weight.observer),
        )

    return settings


def deploy(model, sample, settings, folder):
    captured = capture(model.eval(), (torch.randn(1, *sample),))
    plan = BACKEND.plan(captured, settings)
    params = resolve(captured, plan, collect(captured, [plan], [(torch.randn(16, *sample),)]))
    job = ExportJob(captured=captured, plan=plan, params=params, out_dir=folder)
    files = BACKEND.export(job)
    assert {p.name for p in folder.iterdir()} == set(files.values())
    record = json.loads((folder / files["description"]).read_text())
    return job, record, BACKEND.load(folder, files, "engine", 1), BACKEND.load(folder, files, "float", 1)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    torch.manual_seed(0)
    return Net(), *deploy(model := Net(), (3, 6, 6), mixed(), tmp_path_factory.mktemp("academic")), model


def test_it_is_a_simulation():
    assert BACKEND.simulated_only
    assert not BACKEND.needs_onnx
    assert BACKEND.name == "academic"


def test_every_layer_has_its_own_bits(net):
    _, job, record, *_ = net
    bits = {(user, p["kind"]): p["bits"] for p in record["points"] for user in p["users"]}
    order = [op.node for op in job.plan.ops if op.int8]
    assert len(order) == 9
    for i, node in enumerate(order):
        assert bits[node, "activation"] == 1 + i
        if "matmul" not in node:
            assert bits[node, "weight"] == 16 - i


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_saved_program_is_the_simulation(net, size):
    _, job, _, engine, twin, model = net
    x = torch.randn(size, 3, 6, 6)
    with torch.no_grad():
        expected, exact = simulate(job.captured, job.plan, job.params)(x), model(x)
    np.testing.assert_allclose(engine(x.numpy()), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(twin(x.numpy()), exact.numpy(), atol=1e-5)
    assert np.abs(engine(x.numpy()) - exact.numpy()).max() > 1e-3
    assert engine.runtime_ops() == []
    assert engine.input_names == ("x",)


@pytest.mark.parametrize("start", range(16))
def test_first_layer_in_float64(start, tmp_path):
    """A 1x1 convolution is a matrix product: rounding and product, written out."""
    torch.manual_seed(start)
    model = nn.Conv2d(3, 4, 1)
    _, record, engine, _ = deploy(model, (3, 2, 2), mixed(start), tmp_path)
    grids = {p["kind"]: p for p in record["points"]}
    assert (grids["activation"]["bits"], grids["weight"]["bits"]) == (1 + start, 16 - start)
    x = np.random.default_rng(start).standard_normal((5, 3, 2, 2)).astype(np.float32)

    def rounded(values, grid, shape):
        scale = np.asarray(grid["scale"], np.float64).reshape(shape)
        zero = np.asarray(grid["zero_point"], np.float64).reshape(shape)
        # The integer is decided in float32, as every engine does; what follows is exact.
        integers = np.rint(values / scale.astype(np.float32)).astype(np.float64) + zero
        integers = integers.clip(grid["qmin"], grid["qmax"])
        assert len(np.unique(integers)) <= 2 ** grid["bits"]
        return (integers - zero) * scale

    weight = rounded(model.weight.detach().numpy(), grids["weight"], (-1, 1, 1, 1))[:, :, 0, 0]
    expected = np.einsum("oc,nchw->nohw", weight, rounded(x, grids["activation"], ()))
    expected += model.bias.detach().numpy().astype(np.float64).reshape(1, -1, 1, 1)
    np.testing.assert_allclose(engine(x), expected, rtol=1e-5, atol=1e-5)


def test_size_of_the_weights_in_bits(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 8, 1, bias=False))
    _, record, *_ = deploy(model, (3, 5, 5), mixed(), tmp_path)
    # 108 weights of 16 bits, 4 float biases, 32 weights of 15 bits.
    assert record["weights_size_bits"] == 108 * 16 + 4 * 32 + 32 * 15
    assert record["float_weights_size_bits"] == (108 + 4 + 32) * 32
    assert [p["size_bits"] for p in record["points"] if p["kind"] == "weight"] == [108 * 16, 32 * 15]


def test_wrong_inputs_and_files_are_one_clear_error(net, tmp_path):
    engine = net[3]
    with pytest.raises(DataError, match="expected 1 inputs"):
        engine()
    with pytest.raises(BackendError, match="torch cannot load"):
        BACKEND.load(tmp_path, {"engine": "simulated.pt2"}, "engine", 0)


def test_threads_are_given_back(net):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        net[3](np.zeros((1, 3, 6, 6), np.float32))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
