"""Stand-ins for TensorRT and CUDA that keep a record of the calls: host memory is the device's."""

from __future__ import annotations

import ctypes
import enum
import sys
import types

import numpy as np
import pytest


class Dims(tuple):
    """As TensorRT's: a sequence of sizes."""


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class TensorIOMode(enum.IntEnum):
    NONE, INPUT, OUTPUT = range(3)


class FakeTensor:
    def __init__(self, name, shape):
        self.name, self.shape = name, Dims(shape)


class FakeEngine:
    """``y = 2 x``, batches of 1 to 4, one engine in the memory of the process."""

    num_io_tensors = 2

    def __init__(self, state):
        self.state = state

    def get_tensor_name(self, index):
        return ("x", "y")[index]

    def get_tensor_mode(self, name):
        return TensorIOMode.INPUT if name == "x" else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name):
        return Dims((-1, 3))

    def get_tensor_dtype(self, name):
        return "float32"

    def get_tensor_profile_shape(self, name, index):
        return [Dims((1, 3)), Dims((1, 3)), Dims((4, 3))]

    def create_execution_context(self):
        return FakeContext(self.state)

    def create_engine_inspector(self):
        return types.SimpleNamespace(get_engine_information=lambda kind: self.state["layers"])


class FakeContext:
    def __init__(self, state):
        self.state, self.addresses, self.shape = state, {}, None

    def set_input_shape(self, name, shape):
        self.shape = shape
        self.state["batches"].append(shape[0])
        return shape[0] <= 4

    def get_tensor_shape(self, name):
        return Dims(self.shape)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        count = int(np.prod(self.shape))
        source = (ctypes.c_float * count).from_address(self.addresses["x"])
        target = (ctypes.c_float * count).from_address(self.addresses["y"])
        for i in range(count):
            target[i] = 2 * source[i]
        return not self.state.get("fails")


class FakeConfig:
    def __init__(self, state):
        self.state = state
        state["cleared"], state["profiles"] = [], []

    def clear_flag(self, flag):
        self.state["cleared"].append(flag)

    def add_optimization_profile(self, profile):
        self.state["profiles"].append(profile.shapes)

    def create_timing_cache(self, content):
        self.state["timings_read"] = content
        return "cache"

    def set_timing_cache(self, cache, ignore_mismatch):
        assert (cache, ignore_mismatch) == ("cache", False)
        return True

    def get_timing_cache(self):
        return types.SimpleNamespace(serialize=lambda: b"timings")


class FakeProfile:
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, least, best, most):
        self.shapes[name] = (tuple(least), tuple(best), tuple(most))


class FakeBuilder:
    def __init__(self, log, state):
        self.log, self.state = log, state

    def create_network(self, flags):
        self.state["network_flags"] = flags
        inputs = self.state["inputs"]
        return types.SimpleNamespace(num_inputs=len(inputs), get_input=lambda i: inputs[i])

    def create_builder_config(self):
        return FakeConfig(self.state)

    def create_optimization_profile(self):
        return FakeProfile()

    def build_serialized_network(self, network, config):
        self.state["verbosity"] = config.profiling_verbosity
        if self.state.get("no_kernels"):
            self.log.log(ILogger.Severity.ERROR, "no implementation for node conv2d")
            return None
        return b"plan"


class FakeParser:
    num_errors = 1

    def __init__(self, network, log, state):
        self.state = state

    def parse_from_file(self, path):
        return not self.state.get("unreadable")

    def get_error(self, index):
        return types.SimpleNamespace(desc=lambda: "bad op", node_name=lambda: "n", node_operator=lambda: "Foo")


def _fake_tensorrt(state):
    module = types.ModuleType("tensorrt")
    module.__version__ = state["version"]
    module.ILogger, module.Dims, module.TensorIOMode = ILogger, Dims, TensorIOMode
    module.NetworkDefinitionCreationFlag = enum.IntEnum("Flag", {"STRONGLY_TYPED": 1})
    module.BuilderFlag = enum.IntEnum("Flag", {"TF32": 7})
    module.ProfilingVerbosity = enum.IntEnum("Verbosity", {"DETAILED": 2})
    module.LayerInformationFormat = enum.IntEnum("Format", {"JSON": 1})
    module.Builder = lambda log: FakeBuilder(log, state)
    module.OnnxParser = lambda network, log: FakeParser(network, log, state)
    module.nptype = np.dtype
    module.Runtime = lambda log: types.SimpleNamespace(
        deserialize_cuda_engine=lambda data: FakeEngine(state) if data == b"plan" else None
    )
    return module


def _fake_cuda(state):
    module = types.ModuleType("cuda.bindings.runtime")
    module.cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    blocks = state["blocks"] = {}

    def malloc(size):
        block = ctypes.create_string_buffer(size)
        blocks[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def copy(target, source, size, kind, stream):
        ctypes.memmove(target, source, size)
        return (0,)

    module.cudaMalloc, module.cudaMemcpyAsync = malloc, copy
    module.cudaFree = lambda address: (0,) if blocks.pop(address, None) else (1,)
    module.cudaStreamCreate = lambda: (0, 17)
    module.cudaEventCreate = lambda: (0, object())
    module.cudaEventElapsedTime = lambda first, last: (0, 0.25)
    module.cudaGetDeviceCount = lambda: (0, state["gpus"]) if state["gpus"] is not None else (35, 0)
    module.cudaGetDeviceProperties = lambda index: (0, types.SimpleNamespace(major=8, minor=9))
    for name in ("cudaStreamSynchronize", "cudaEventRecord", "cudaEventDestroy", "cudaStreamDestroy"):
        setattr(module, name, lambda *arguments: (0,))
    return module


@pytest.fixture
def trt(monkeypatch, tmp_path):
    """What the stand-ins were told and are to answer."""
    state = {"version": "10.13.3.9", "gpus": 1, "batches": [], "inputs": [FakeTensor("x", (-1, 3))], "layers": "{}"}
    bindings = types.ModuleType("cuda.bindings")
    runtime = _fake_cuda(state)
    bindings.runtime = runtime
    cuda = types.ModuleType("cuda")
    cuda.bindings = bindings
    modules = {"cuda": cuda, "cuda.bindings": bindings, "cuda.bindings.runtime": runtime}
    for name, module in {**modules, "tensorrt": _fake_tensorrt(state)}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("razordeploy.backends.tensorrt.runtime.available", lambda name: True)
    monkeypatch.setattr("razordeploy.lazy.available", lambda name: True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return state
