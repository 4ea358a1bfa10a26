"""Run an engine on the GPU, time it there, and read its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from razordeploy.backends.base import Runner, RuntimeOp
from razordeploy.backends.tensorrt.as_written import AsWritten
from razordeploy.backends.tensorrt.inspector import layers
from razordeploy.backends.tensorrt.runtime import absent, cuda, last_error, logger, runtime
from razordeploy.errors import BackendError


class TensorRTRunner:
    """An engine with one execution context, one stream and buffers that grow with the batch.

    Args:
        path: the ``.engine``.

    Raises:
        BackendError: made by another TensorRT or for another GPU, or it asks for what this class does not do.
    """

    def __init__(self, path: Path) -> None:
        import tensorrt as trt

        self._cuda = runtime()
        self._log, self._errors = logger()
        self._runtime = trt.Runtime(self._log)
        engine: trt.ICudaEngine | None = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            said = last_error(self._errors)
            raise BackendError(f"TensorRT cannot load {path}: {said}", hint="build it again on this machine")
        self.engine = engine
        self.context = self.engine.create_execution_context()
        self.stream = cuda(self._cuda.cudaStreamCreate())
        self._events = [cuda(self._cuda.cudaEventCreate()) for _ in range(2)]
        self._buffers: dict[str, tuple[int, int]] = {}
        names = [self.engine.get_tensor_name(i) for i in range(self.engine.num_io_tensors)]
        mode = trt.TensorIOMode.INPUT
        self.input_names = tuple(n for n in names if self.engine.get_tensor_mode(n) == mode)
        self.output_names = tuple(n for n in names if n not in self.input_names)
        self.max_batch = self._largest_batch()
        self.device_ms: float | None = None
        """Milliseconds that the GPU took for the last call, without the copies; None before the first."""

    def _largest_batch(self) -> int | None:
        dynamic = [n for n in self.input_names if -1 in tuple(self.engine.get_tensor_shape(n))]
        return min((int(tuple(self.engine.get_tensor_profile_shape(n, 0)[2])[0]) for n in dynamic), default=None)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch of ``(N, ...)`` arrays; more than the engine takes at once goes through in parts."""
        count = len(inputs[0])
        size = min(self.max_batch or count, count)
        parts = [self._run([x[i : i + size] for x in inputs]) for i in range(0, count, size)]
        values = [np.concatenate(column) if len(column) > 1 else column[0] for column in zip(*parts, strict=True)]
        return values[0] if len(values) == 1 else tuple(values)

    def timed_ms(self, *inputs: np.ndarray) -> float:
        """Milliseconds of one call on the GPU itself, between two events on its stream."""
        self(*inputs)
        assert self.device_ms is not None
        return self.device_ms

    def _run(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        kind = self._cuda.cudaMemcpyKind
        for name, value in zip(self.input_names, inputs, strict=True):
            array = np.ascontiguousarray(value, dtype=self._dtype(name))
            if not self.context.set_input_shape(name, tuple(array.shape)):
                raise BackendError(f"the engine takes no input '{name}' of shape {array.shape}")
            address = self._buffer(name, array.nbytes)
            cuda(self._cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes,
                                            kind.cudaMemcpyHostToDevice, self.stream))  # fmt: skip
            cuda(self._cuda.cudaStreamSynchronize(self.stream))  # the array may be a copy that dies here
        outputs = [np.empty(self._output_shape(name), self._dtype(name)) for name in self.output_names]
        for name, array in zip(self.output_names, outputs, strict=True):
            self._buffer(name, array.nbytes)
        first, last = self._events
        cuda(self._cuda.cudaEventRecord(first, self.stream))
        if not self.context.execute_async_v3(int(self.stream)):
            raise BackendError(f"the engine failed: {last_error(self._errors)}")
        cuda(self._cuda.cudaEventRecord(last, self.stream))
        for name, array in zip(self.output_names, outputs, strict=True):
            address = self._buffers[name][0]
            cuda(self._cuda.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes,
                                            kind.cudaMemcpyDeviceToHost, self.stream))  # fmt: skip
        cuda(self._cuda.cudaStreamSynchronize(self.stream))
        self.device_ms = float(cuda(self._cuda.cudaEventElapsedTime(first, last)))
        return outputs

    def _output_shape(self, name: str) -> tuple[int, ...]:
        shape = tuple(self.context.get_tensor_shape(name))
        if -1 in shape:
            raise BackendError(f"the shape of the output '{name}' depends on the data: {shape}")
        return shape

    def _dtype(self, name: str) -> np.dtype:
        import tensorrt as trt

        return np.dtype(trt.nptype(self.engine.get_tensor_dtype(name)))

    def _buffer(self, name: str, size: int) -> int:
        """Address of device memory for the tensor ``name``, of ``size`` bytes at least."""
        address, held = self._buffers.get(name, (0, -1))
        if held < size:
            if held >= 0:
                cuda(self._cuda.cudaFree(address))
            address = int(cuda(self._cuda.cudaMalloc(max(size, 1))))
            self._buffers[name] = (address, size)
        self.context.set_tensor_address(name, address)
        return address

    def runtime_ops(self) -> list[RuntimeOp]:
        """Layers of the engine with the type they compute in."""
        import tensorrt as trt

        inspector = self.engine.create_engine_inspector()
        inspector.execution_context = self.context
        return layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def close(self) -> None:
        """Give the GPU's memory back."""
        for address, _ in self._buffers.values():
            self._cuda.cudaFree(address)
        self._buffers.clear()
        for event in self._events:
            self._cuda.cudaEventDestroy(event)
        self._events.clear()
        if self.stream is not None:
            self._cuda.cudaStreamDestroy(self.stream)
            self.stream = None

    def __del__(self) -> None:
        if getattr(self, "_events", None):
            self.close()


def load(folder: Path, files: Mapping[str, str], role: str, threads: int) -> Runner:
    """Load the ``engine`` or its ``float`` twin; the graph itself (``onnx``, ``onnx_float``) runs on the CPU.

    Raises:
        MissingDependency: an engine, and no TensorRT or GPU to run it.
    """
    if role.startswith("onnx"):
        return AsWritten(folder / files[role], threads)
    lacking = absent()
    if lacking is not None:
        raise lacking
    return TensorRTRunner(folder / files[role])
