"""What the compiled packages run, and how far they are from the simulation."""

from __future__ import annotations

import json
import logging
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from torch.nn import functional

from razordeploy.backends.base import ExportJob, RuntimeOp
from razordeploy.backends.torch_native import compiler
from razordeploy.backends.torch_native.backend import BACKEND
from razordeploy.backends.torch_native.engine import TorchNativeRunner
from razordeploy.backends.torch_native.runtime_graph import check_calls
from razordeploy.capture.export import capture
from razordeploy.errors import BackendError, DataError, MissingDependency
from razordeploy.models.cifar import CifarResNet
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.statistics import Statistics, requests, resolve

CONV, CONV_ADD = "onednn.qconv_pointwise.default", "onednn.qconv2d_pointwise.binary"
LINEAR, LINEAR_ADD = "onednn.qlinear_pointwise.default", "onednn.qlinear_pointwise.binary"


class OneConv(nn.Module):
    """conv-bn-relu and a second convolution, so that the first one's output is on a grid."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.last(functional.relu(self.bn(self.conv(x))))


class Mobile(nn.Module):
    """Depthwise separable block with max pooling, two convolutions into one add, and a concatenation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.point, self.shortcut = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu6(self.stem(x)), 2)
        short = self.shortcut(x)
        y = functional.relu(self.point(functional.hardswish(self.depthwise(x))) + short)
        return self.last(torch.cat([y, functional.silu(self.shortcut(y))], 1))


class Mlp(nn.Module):
    """A residual MLP whose first shortcut is the model's own input."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(16, 32), nn.Linear(32, 16), nn.LayerNorm(16)
        self.head = nn.Linear(16, 8, bias=False)

    def forward(self, x):
        return self.head(self.norm(x + self.down(functional.gelu(self.up(x)))))


def randomized(model: nn.Module) -> nn.Module:
    """Batch norms with statistics of their own, so that folding them matters."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope="module")
def conv(deploy):
    torch.manual_seed(0)
    return deploy(randomized(OneConv()), 3, 8, 8)


@pytest.fixture(scope="module")
def coarse(deploy):
    """Other grids that the kernels have: symmetric activations, 4-bit weights with one scale."""
    torch.manual_seed(0)
    changes = {"activation": {"symmetric": True}, "weight": {"ch_axis": None, "bits": 4}}
    return deploy(randomized(OneConv()), 3, 8, 8, **changes)


@pytest.fixture(scope="module")
def resnet(deploy):
    torch.manual_seed(1)
    return deploy(randomized(CifarResNet(1)), 3, 16, 16)


@pytest.fixture(scope="module")
def mobile(deploy):
    torch.manual_seed(2)
    return deploy(Mobile(), 3, 8, 8)


@pytest.fixture(scope="module")
def mlp(deploy):
    torch.manual_seed(3)
    return deploy(Mlp(), 16)


def steps(deployed, size: int) -> float:
    """Largest difference between engine and simulation in steps of an 8-bit grid over the output's range."""
    x = deployed.batch(size)
    expected = deployed.expected(x)
    got = deployed.engine(x)
    assert got.shape == expected.shape
    step = max(expected.max() - expected.min(), 1e-6) / 255
    return float(np.abs(got - expected).max() / step)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("name", ["conv", "coarse", "mobile", "mlp", "resnet"])
def test_engine_agrees_with_the_simulation(name, size, request):
    deployed = request.getfixturevalue(name)
    assert steps(deployed, size) <= BACKEND.spec.parity_steps


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("name", ["conv", "coarse", "mobile", "mlp", "resnet"])
def test_float_twin_agrees_with_the_model(name, size, request):
    deployed = request.getfixturevalue(name)
    x = deployed.batch(size)
    with torch.no_grad():
        expected = deployed.model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(deployed.float_engine(x), expected, atol=1e-5)
    assert not any(op.int8 for op in deployed.float_engine.runtime_ops())
    # The engine is not the float model: its rounding shows.
    assert np.abs(deployed.engine(x) - expected).max() > 1e-4


@pytest.mark.parametrize("name", ["conv", "coarse", "mobile", "mlp", "resnet"])
def test_every_planned_operation_runs_in_int8(name, request):
    deployed = request.getfixturevalue(name)
    assert [op for op in deployed.plan.ops if op.int8]
    assert deployed.not_int8() == []


def test_conv_bn_relu_is_one_kernel(conv):
    ops = conv.engine.runtime_ops()
    assert [(op.type, op.precision, op.origins) for op in ops] == [
        (CONV, "u8", ("conv2d", "relu")),
        (CONV, "u8", ("conv2d_1",)),
    ]


def test_a_residual_block_is_two_kernels(resnet):
    kinds = Counter(op.type for op in resnet.engine.runtime_ops() if op.int8)
    # Stem and three blocks of two; the last add feeds the float pooling and comes for free.
    assert (kinds[CONV], kinds[CONV_ADD], kinds[LINEAR]) == (4, 3, 1)
    for add, convolution in (("add", "conv2d_2"), ("add_2", "conv2d_6")):
        assert resnet.kernel(add) == resnet.kernel(convolution) == (CONV_ADD, "u8")
    assert resnet.kernel("adaptive_avg_pool2d")[1] == "f32"


def test_the_kernel_that_adds_keeps_its_own_operand_exact(resnet):
    reads = {(p.node, user) for p in resnet.plan.points for user in p.users}
    assert ("relu", "add") in reads
    assert ("conv2d_2", "add") not in reads


def test_of_two_convolutions_the_later_adds(mobile):
    reads = {(p.node, user) for p in mobile.plan.points for user in p.users}
    later, earlier = "conv2d_3", "conv2d_1"
    assert (earlier, "add") in reads
    assert (later, "add") not in reads
    assert mobile.kernel("add") == mobile.kernel(later) == (CONV_ADD, "u8")


def test_depthwise_and_its_activation_run_in_int8(mobile):
    kinds = {op.node: op.kind for op in mobile.plan.ops}
    (depthwise,) = (node for node, kind in kinds.items() if kind == "depthwise_conv2d")
    (kernel,) = (op for op in mobile.engine.runtime_ops() if depthwise in op.origins)
    assert (kernel.type, kernel.precision, kernel.origins) == (CONV, "u8", (depthwise, "hardswish"))


def test_pooling_and_concatenation_move_integers(mobile):
    types = {op.type: op.precision for op in mobile.engine.runtime_ops()}
    assert types["qmaxpool2d"] == types["qcat"] == "u8"


def test_linear_layers_run_in_int8(mlp):
    assert mlp.kernel("linear") == mlp.kernel("linear_2") == (LINEAR, "u8")
    assert mlp.kernel("linear_1") == (LINEAR_ADD, "u8")


def test_the_callers_array_is_not_written(mlp):
    x = mlp.batch(3)
    x.flags.writeable = False
    kept = x.copy()
    mlp.engine(x)
    np.testing.assert_array_equal(x, kept)


def test_memory_layout_of_the_input_does_not_matter(conv):
    x = conv.batch(2)
    strided = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not strided.flags.c_contiguous
    np.testing.assert_array_equal(conv.engine(strided), conv.engine(x))
    np.testing.assert_array_equal(conv.engine(x.astype(np.float64)), conv.engine(x))


@pytest.mark.parametrize("shape", [(1, 3, 8, 9), (1, 3, 8), (3, 8, 8)])
def test_a_wrong_shape_is_refused(conv, shape):
    with pytest.raises(DataError, match=r"'x': expected \(N, 3, 8, 8\) float32, got"):
        conv.engine(np.zeros(shape, np.float32))


def test_a_wrong_dtype_or_number_is_refused(conv):
    with pytest.raises(DataError, match="complex64"):
        conv.engine(np.zeros((1, 3, 8, 8), np.complex64))
    with pytest.raises(DataError, match="expected 1 inputs"):
        conv.engine()


def test_threads_are_lent_and_given_back(conv):
    seen = []
    runner = TorchNativeRunner(conv.folder / "model.pt2", threads=1)
    run = runner._run
    runner._run = lambda tensors: (seen.append(torch.get_num_threads()), run(tensors))[1]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        np.testing.assert_array_equal(runner(conv.batch(2)), conv.engine(conv.batch(2)))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


def test_coarse_grids_keep_their_levels(coarse):
    (first,) = (p for p in coarse.plan.points if p.users == ("conv2d",) and p.kind == "weight")
    assert (first.scheme.qmin, first.scheme.qmax, first.scheme.ch_axis) == (-7, 7, None)
    assert [op.origins[0] for op in coarse.engine.runtime_ops() if op.int8] == ["conv2d", "conv2d_1"]


class TwoOutputs(nn.Module):
    """Two inputs, one of them by keyword, and a nest of outputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x, *, bias):
        y = functional.relu(self.a(x))
        return {"features": y, "logits": [self.b(y) + bias, bias]}


def test_nested_outputs_keyword_inputs_and_a_fixed_batch(tmp_path, yaml_settings):
    torch.manual_seed(5)
    model = TwoOutputs().eval()
    inputs = torch.randn(2, 8), torch.randn(2, 4)
    captured = capture(model, inputs[:1], {"bias": inputs[1]}, dynamic_batch=False)
    plan = BACKEND.plan(captured, yaml_settings())
    params = resolve(captured, plan, Statistics(observers=observed(captured, plan, model, inputs)))
    files = BACKEND.export(ExportJob(captured=captured, plan=plan, params=params, out_dir=tmp_path))
    engine = BACKEND.load(tmp_path, files, "engine", 1)
    assert engine.input_names == ("x", "bias")
    features, logits, bias = engine(*(x.numpy() for x in inputs))
    with torch.no_grad():
        expected = model(inputs[0], bias=inputs[1])
    np.testing.assert_array_equal(bias, inputs[1].numpy())
    np.testing.assert_allclose(features, expected["features"].numpy(), atol=0.05)
    np.testing.assert_allclose(logits, expected["logits"][0].numpy(), atol=0.05)
    with pytest.raises(DataError, match=r"expected \(2, 8\) float32, got \(3, 8\)"):
        engine(np.zeros((3, 8), np.float32), np.zeros((3, 4), np.float32))


def observed(captured, plan, model, inputs):
    """Observers fed by hand: ``collect`` takes positional inputs only."""
    values = {"x": inputs[0], "relu": functional.relu(model.a(inputs[0])).detach()}
    observers = {key: build_observer(key[1].config) for key in requests([plan])}
    for (node, _), observer in observers.items():
        observer.observe(values[node])
    return observers


def test_a_shared_weight_keeps_its_kernels_apart(mobile):
    names = [op.origins[0] for op in mobile.engine.runtime_ops() if op.type.startswith("onednn.")]
    assert sorted(names) == sorted(op.node for op in mobile.plan.ops if op.int8 and op.kind != "add")


def test_int8_claims_are_held_against_the_generated_code(conv):
    ops = conv.engine.runtime_ops()
    check_calls(conv.folder / "model.pt2", ops)
    with pytest.raises(BackendError, match="has 3 int8 kernels, its generated code calls 2"):
        check_calls(conv.folder / "model.pt2", [*ops, RuntimeOp(name="n", type=CONV, precision="u8")])


def test_the_record_is_plain_json(conv):
    record = json.loads((conv.folder / "runtime_graph.json").read_text())
    assert record["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 3, 8, 8]}]
    assert [op["origins"] for op in record["engine"]] == [["conv2d", "relu"], ["conv2d_1"]]
    assert conv.engine.input_names == ("x",)


def test_the_packages_hold_int8_and_float_code(conv):
    sources = {}
    for file in ("model.pt2", "float.pt2"):
        with zipfile.ZipFile(conv.folder / file) as archive:
            (name,) = (n for n in archive.namelist() if n.endswith(".wrapper.cpp"))
            sources[file] = archive.read(name).decode()
    assert "aoti_torch_cpu__qconv_pointwise" in sources["model.pt2"]
    assert "aoti_torch_cpu__qconv_pointwise" not in sources["float.pt2"]


def test_a_damaged_package_is_one_clear_error(conv, tmp_path):
    shutil.copy(conv.folder / "runtime_graph.json", tmp_path)
    (tmp_path / "model.pt2").write_bytes(b"not a package")
    with pytest.raises(BackendError, match="torch cannot load"):
        TorchNativeRunner(tmp_path / "model.pt2")


def test_a_missing_compiler_is_one_clear_error(tmp_path):
    module = torch.fx.symbolic_trace(nn.ReLU())
    missing = torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")})
    with missing, pytest.raises(MissingDependency, match="no compiler; apt install g"):
        compiler.compile_package(module, (torch.zeros(2, 2),), (True,), tmp_path / "m.pt2", lambda graph: None)


def test_compiling_is_quiet_and_leaves_nothing_behind(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)

    def left_behind():
        found = Path(default_cache_dir()).rglob("*")
        return {p for p in found if "precompiled_headers" not in str(p)}  # torch keeps two, once, in the system's /tmp

    before = left_behind()
    levels = {name: logging.getLogger(name).level for name in compiler._NOISY}
    out = tmp_path / "out"
    out.mkdir()
    module = torch.fx.symbolic_trace(nn.ReLU())
    compiler.compile_package(module, (torch.zeros(2, 2),), (True,), out / "m.pt2", lambda graph: None)
    assert capfd.readouterr() == ("", "")
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*")] == [Path("out"), Path("out/m.pt2")]
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    assert left_behind() == before
    assert {name: logging.getLogger(name).level for name in compiler._NOISY} == levels


def test_a_failing_compilation_is_one_clear_error(tmp_path):
    def fail(graph):
        raise ValueError("first line\nsecond line")

    module = torch.fx.symbolic_trace(nn.ReLU())
    with pytest.raises(BackendError, match="AOTInductor cannot compile the graph: .*first line$"):
        compiler.compile_package(module, (torch.zeros(2, 2),), (True,), tmp_path / "m.pt2", fail)
