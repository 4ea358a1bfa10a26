"""The real library on a real GPU; runs by itself wherever both are, and the conformance suite does too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.backends.tensorrt.builder import Profile, build
from razordeploy.backends.tensorrt.runtime import absent, compute_capability, tensorrt_version
from razordeploy.backends.tensorrt.timing_cache import TimingCache
from razordeploy.errors import BackendError
from razordeploy.report.write import read_report

_LACKING = absent()
pytestmark = pytest.mark.skipif(_LACKING is not None, reason=str(_LACKING))


class Block(nn.Module):
    """Residual block, pooling, concatenation and a classifier, wide enough for the integer units."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = (nn.Conv2d(i, 32, 3, padding=1) for i in (3, 32, 32))
        self.left, self.right = nn.Conv2d(32, 32, 1), nn.Conv2d(32, 32, 1)
        self.head = nn.Linear(64, 32)

    def forward(self, x):
        x = torch.max_pool2d(self.stem(x).relu(), 2)
        x = (self.b(self.a(x).relu()) + x).relu()
        x = torch.cat([self.left(x).relu(), self.right(x).relu()], 1)
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpu")
    images = torch.randn(64, 3, 32, 32)
    model = Block().eval()
    artifact = rd.ptq(
        model, [images], example_inputs=(images[:2],), backend="tensorrt", out_dir=folder,
        deploy={"batch_size": 4, "max_batch": 8}, benchmark_seconds=1,
    )  # fmt: skip
    return artifact, images, read_report(folder)["backends"]["tensorrt"]


def test_the_engine_runs_what_was_planned_in_int8(made):
    artifact, _, entry = made
    assert artifact.kind == "engine"
    found = rd.load_engine(artifact).coverage()
    weighted = {f.node for f in found.float_ops if f.op in ("conv2d", "linear")}
    assert not weighted, f"float, and planned as int8: {found.float_ops}"
    assert entry["coverage"]["int8"] == found.int8


def test_parity(made):
    _, _, entry = made
    assert entry["parity"]["sqnr_db"] is None or entry["parity"]["sqnr_db"] > 25
    assert entry["passed"]


@pytest.mark.parametrize("batch", [1, 4, 8, 20])
def test_any_batch(made, batch):
    artifact, images, _ = made
    engine = rd.load_engine(artifact)
    whole = engine(images[:batch].numpy())
    assert whole.shape == (batch, 32)
    one = engine(images[:1].numpy())
    np.testing.assert_allclose(whole[:1], one, atol=2 * float(np.ptp(one)) / 255)


def test_latency_is_measured_on_the_device(made):
    artifact, _, entry = made
    found = rd.load_engine(artifact).benchmark(batch=4, seconds=0.5)
    assert 0 < found.p50_ms < 50
    assert entry["latency_ms"]["engine"]["p50"] > 0


def test_second_build_reads_the_timings_of_the_first(made, tmp_path):
    artifact, _, _ = made
    for name in ("first", "second"):
        build(artifact.file("onnx"), tmp_path / f"{name}.engine", Profile(batch=4, max_batch=8), tmp_path / "cache")
    assert TimingCache(tmp_path / "cache", tensorrt_version(), compute_capability()).read()


def test_a_file_that_is_no_graph(tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="TensorRT cannot read"):
        build(tmp_path / "bad.onnx", tmp_path / "bad.engine", Profile())
