"""The runner's calls, on stand-ins whose device memory is the host's."""

from __future__ import annotations

import gc
import json

import numpy as np
import pytest

from razordeploy.backends.harness import interleaved_latency
from razordeploy.backends.tensorrt.engine import TensorRTRunner, load
from razordeploy.errors import BackendError, MissingDependency


@pytest.fixture
def engine(trt, tmp_path):
    (tmp_path / "m.engine").write_bytes(b"plan")
    return TensorRTRunner(tmp_path / "m.engine")


def test_run(engine):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(engine(x), 2 * x)
    assert engine.input_names == ("x",)
    assert engine.max_batch == 4


def test_more_than_the_engine_takes_at_once(engine, trt):
    x = np.random.default_rng(0).standard_normal((9, 3)).astype(np.float32)
    np.testing.assert_array_equal(engine(x), 2 * x)
    assert trt["batches"] == [4, 4, 1]


def test_strided_and_double_inputs(engine):
    x = np.arange(12, dtype=np.float64).reshape(3, 4)[:, 1:]
    np.testing.assert_array_equal(engine(x), 2 * x)


def test_time_is_that_of_the_device(engine):
    x = np.zeros((1, 3), np.float32)
    found = interleaved_latency({"engine": engine}, [x], seconds=0.01)["engine"]
    assert (found.p50_ms, found.p99_ms) == (0.25, 0.25)


def test_memory_is_given_back(engine, trt):
    engine(np.zeros((1, 3), np.float32))
    engine(np.zeros((4, 3), np.float32))
    assert len(trt["blocks"]) == 2
    engine.close()
    engine.close()
    assert trt["blocks"] == {}
    del engine
    gc.collect()


def test_failed_run(engine, trt):
    trt["fails"] = True
    with pytest.raises(BackendError, match="the engine failed: no reason given"):
        engine(np.zeros((1, 3), np.float32))


def test_engine_of_another_machine(trt, tmp_path):
    (tmp_path / "m.engine").write_bytes(b"other")
    with pytest.raises(BackendError, match=r"cannot load .*m.engine.*build it again on this machine"):
        TensorRTRunner(tmp_path / "m.engine")


def test_layers(engine, trt):
    record = {"Name": "conv2d", "LayerType": "Conv", "Inputs": [{"Name": "x", "Format/Datatype": "Row major Int8"}]}
    trt["layers"] = json.dumps({"Layers": [record]})
    assert [(op.name, op.int8) for op in engine.runtime_ops()] == [("conv2d", True)]


def test_no_engine_runs_without_a_gpu(trt, tmp_path):
    trt["gpus"] = 0
    with pytest.raises(MissingDependency, match="needs an NVIDIA GPU"):
        load(tmp_path, {"engine": "m.engine"}, "engine", 0)
