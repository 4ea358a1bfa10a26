"""What the builder asks of TensorRT, on stand-ins; the real library is in test_gpu.py."""

from __future__ import annotations

import json
import sys

import pytest

from razordeploy.artifact import TensorSpec
from razordeploy.backends.tensorrt.builder import Profile, build
from razordeploy.backends.tensorrt.command import build_line
from razordeploy.backends.tensorrt.runtime import absent
from razordeploy.backends.tensorrt.timing_cache import TimingCache
from razordeploy.errors import BackendError
from tests.backends.tensorrt.conftest import FakeTensor


def test_strongly_typed_detailed_and_without_tf32(trt, tmp_path):
    build(tmp_path / "m.onnx", tmp_path / "m.engine", Profile(batch=8, max_batch=16))
    assert (tmp_path / "m.engine").read_bytes() == b"plan"
    assert trt["network_flags"] == 1 << 1
    assert [flag.name for flag in trt["cleared"]] == ["TF32"]
    assert trt["verbosity"].name == "DETAILED"
    assert trt["profiles"] == [{"x": ((1, 3), (8, 3), (16, 3))}]


def test_fixed_batch_needs_no_profile(trt, tmp_path):
    trt["inputs"] = [FakeTensor("x", (1, 3))]
    build(tmp_path / "m.onnx", tmp_path / "m.engine", Profile())
    assert trt["profiles"] == []


def test_an_open_image_size_is_refused(trt, tmp_path):
    trt["inputs"] = [FakeTensor("x", (-1, 3, -1, -1))]
    with pytest.raises(BackendError, match=r"'x' of shape \(-1, 3, -1, -1\) leaves more than the batch open"):
        build(tmp_path / "m.onnx", tmp_path / "m.engine", Profile())


@pytest.mark.parametrize(
    ("key", "words"),
    [("unreadable", "cannot read .*: bad op .node n, Foo"), ("no_kernels", "no implementation for node conv2d")],
)
def test_its_own_words(trt, tmp_path, key, words):
    trt[key] = True
    with pytest.raises(BackendError, match=words):
        build(tmp_path / "m.onnx", tmp_path / "m.engine", Profile())
    assert not (tmp_path / "m.engine").exists()


def test_profile_holds_the_batch_it_is_tuned_for():
    assert Profile.of({"batch_size": 64, "max_batch": 32}) == Profile(batch=64, max_batch=64)
    assert Profile.of({}) == Profile(batch=1, max_batch=32)


def test_timings_are_kept_with_what_they_were_measured_on(trt, tmp_path):
    folder = tmp_path / "timings"
    build(tmp_path / "m.onnx", tmp_path / "m.engine", Profile(), folder)
    assert trt["timings_read"] == b""
    said = json.loads((folder / "trt10.13.3.9-sm89.json").read_text())
    assert (said["tensorrt"], said["compute_capability"], len(said["sha256"])) == ("10.13.3.9", "8.9", 64)
    build(tmp_path / "m.onnx", tmp_path / "m.engine", Profile(), folder)
    assert trt["timings_read"] == b"timings"


def test_timings_that_the_sidecar_does_not_vouch_for(tmp_path):
    cache = TimingCache(tmp_path, "11.4.0", "9.0")
    cache.write(b"good")
    assert cache.read() == b"good"
    cache.path.write_bytes(b"torn")
    assert cache.read() == b""
    cache.write(b"good")
    cache.sidecar.write_text("{}")
    assert cache.read() == b""
    assert TimingCache(tmp_path, "11.4.1", "9.0").read() == b""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, None),
        ({"version": "11.4.0.106"}, None),
        ({"version": "8.6.1"}, "expected TensorRT 10 or 11, found 8.6.1"),
        ({"gpus": 0}, "found none"),
        ({"gpus": None}, "needs an NVIDIA GPU and its driver: CUDA: 35"),
    ],
)
def test_what_is_missing(trt, change, words):
    trt.update(change)
    sys.modules["tensorrt"].__version__ = trt["version"]
    found = absent()
    assert found is None if words is None else words in str(found)
    assert found is None or found.exit_code == 3


def test_libraries_that_cannot_be_loaded(trt, monkeypatch):
    def broken(name, extra):
        raise ImportError("libnvinfer.so.11: cannot open shared object file")

    monkeypatch.setattr("razordeploy.backends.tensorrt.runtime.require", broken)
    assert "libnvinfer.so.11" in str(absent())


def test_command(tmp_path):
    inputs = [TensorSpec(name="x", shape=(None, 3, 32, 32), dtype="float32")]
    line = build_line(tmp_path / "a b" / "model.onnx", inputs, 4, 16)
    assert line.startswith(f"trtexec '--onnx={tmp_path}/a b/model.onnx' '--saveEngine={tmp_path}/a b/model.engine'")
    assert "--minShapes=x:1x3x32x32 --optShapes=x:4x3x32x32 --maxShapes=x:16x3x32x32" in line
    for gone in ("--int8", "--fp16", "--best", "--calib"):
        assert gone not in line
    fixed = [TensorSpec(name="x", shape=(1, 3, 32, 32), dtype="float32")]
    assert "Shapes" not in build_line(tmp_path / "model.onnx", fixed, 1, 1)
