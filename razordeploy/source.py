"""What is converted as it is: an ONNX file, or a captured model."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from razordeploy.artifact import TensorSpec
from razordeploy.backends.harness import torch_runner
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel, is_float, module_path, tensor_specs
from razordeploy.capture.onnx_import.file import quantized_node, read_onnx, specs
from razordeploy.capture.onnx_import.load import import_onnx, sample_inputs
from razordeploy.capture.onnx_import.reference import Reference
from razordeploy.config.sections import DeployConfig
from razordeploy.errors import ModelError
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.quantization.plan import PlannedOp

if TYPE_CHECKING:
    import onnx_ir as ir

AS_IT_IS = "converted in float: nothing was to be quantized"


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A model, how it runs where it comes from, and what of it is to be int8."""

    reference: Callable[..., Any]
    """Arrays in, an array or a tuple of them out: what engines are held against."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    samples: tuple[torch.Tensor, ...]
    """Inputs that it runs on."""
    ops: tuple[PlannedOp, ...]
    identity: str
    """Hash of the model."""
    is_quantized: bool = False
    size_bytes: int | None = None
    """Of its file; None: it has none."""

    @property
    def batch(self) -> int | None:
        """Its fixed batch; None: it takes any."""
        sizes = {spec.shape[0] for spec in self.inputs if spec.shape}
        return None if None in sizes or not sizes else next(iter(sizes))

    @abstractmethod
    def write_onnx(self, folder: Path, opset: int) -> Path:
        """Write the model as an ONNX file whose nodes have the names of ``ops``."""

    @abstractmethod
    def as_captured(self) -> CapturedModel:
        """The model as a graph, for backends that do not read ONNX.

        Raises:
            ModelError: it cannot be captured.
        """


@dataclass(frozen=True, kw_only=True)
class OnnxSource(Source):
    """An ONNX file, float or quantized; only its nodes get names where they have none."""

    path: Path
    model: ir.Model

    @classmethod
    def open(cls, path: Path, deploy: DeployConfig) -> OnnxSource:
        """Read the file, and run it once.

        Raises:
            ModelError: it is no ONNX file, or ONNX Runtime cannot run it.
        """
        from razordeploy.backends.onnx_passes.planned import name_nodes, planned_ops

        model = read_onnx(path)
        reference = Reference(path)
        inputs, outputs = specs(model)
        samples = sample_inputs(path, inputs, deploy.input_shapes)
        try:
            found = reference([x.numpy() for x in samples])
        except ModelError:
            # A batch that the file calls open and its nodes fix.
            samples = sample_inputs(path, inputs, deploy.input_shapes, batch=1)
            found = reference([x.numpy() for x in samples])
            inputs = [_fixed(spec, x.numpy()) for spec, x in zip(inputs, samples, strict=True)]
        name_nodes(model)
        quantized = quantized_node(model) is not None
        is_open = any(spec.shape[:1] == (None,) for spec in inputs)
        return cls(
            reference=lambda *arrays: _bare(reference(arrays)),
            inputs=tuple(inputs),
            outputs=tuple(_observed(spec, y, is_open) for spec, y in zip(outputs, found, strict=True)),
            samples=samples,
            ops=planned_ops(model, None if quantized else AS_IT_IS),
            identity=_digest(path, model),
            is_quantized=quantized,
            size_bytes=sum(file.stat().st_size for file in _files(path, model)),
            path=path,
            model=model,
        )

    def write_onnx(self, folder: Path, opset: int) -> Path:
        """Write the file again, with names."""
        import onnx_ir as ir

        target = folder / "source.onnx"
        ir.save(self.model, target, external_data="source.bin")
        return target

    def as_captured(self) -> CapturedModel:
        """Import the file.

        Raises:
            ModelError: it holds what cannot be imported.
        """
        return self._captured

    @cached_property
    def _captured(self) -> CapturedModel:
        return capture(*import_onnx(self.path, inputs=self.samples))


@dataclass(frozen=True, kw_only=True)
class ModelSource(Source):
    """A captured float model."""

    captured: CapturedModel
    deploy: DeployConfig

    @classmethod
    def of(cls, captured: CapturedModel, deploy: DeployConfig) -> ModelSource:
        """Convert what was captured, under the names that ``deploy`` gives."""
        inputs, outputs = tensor_specs(captured, deploy.input_names, deploy.output_names)
        ops = tuple(
            PlannedOp(node=n.name, kind=kind, module=module_path(n), int8=False, reason=AS_IT_IS)
            for n in captured.graph.nodes
            if (kind := kind_of(n)) is not None and is_float(n)
        )
        return cls(
            reference=torch_runner(captured.graph_module),
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            samples=captured.example_inputs,
            ops=ops,
            identity=model_digest(captured),
            captured=captured,
            deploy=deploy,
        )

    def write_onnx(self, folder: Path, opset: int) -> Path:
        """Export the graph."""
        import onnx_ir as ir

        from razordeploy.backends.onnx_passes.export import export_marked
        from razordeploy.backends.onnx_passes.qdq import float_model

        names = {"input_names": self.deploy.input_names, "output_names": self.deploy.output_names}
        target = folder / "source.onnx"
        ir.save(float_model(export_marked(self.captured, [], opset=opset, **names)), target, external_data="source.bin")
        return target

    def as_captured(self) -> CapturedModel:
        """The graph itself."""
        return self.captured


def _bare(values: Sequence[np.ndarray]) -> np.ndarray | tuple[np.ndarray, ...]:
    return values[0] if len(values) == 1 else tuple(values)


def _fixed(spec: TensorSpec, x: np.ndarray) -> TensorSpec:
    return TensorSpec(name=spec.name, shape=x.shape, dtype=spec.dtype)


def _observed(spec: TensorSpec, value: np.ndarray, is_open: bool) -> TensorSpec:
    """The output as it came out, with the sizes open that the file leaves open."""
    if len(spec.shape) == value.ndim:
        return TensorSpec(name=spec.name, shape=spec.shape, dtype=str(value.dtype))
    first = (None,) if is_open and value.ndim else value.shape[:1]
    return TensorSpec(name=spec.name, shape=(*first, *value.shape[1:]), dtype=str(value.dtype))


def _files(path: Path, model: ir.Model) -> list[Path]:
    import onnx_ir as ir

    tensors = [v.const_value for v in model.graph.initializers.values()]
    beside = {str(t.location) for t in tensors if isinstance(t, ir.ExternalTensor)}
    return [path, *(path.parent / name for name in sorted(beside))]


def _digest(path: Path, model: ir.Model) -> str:
    digest = hashlib.sha256()
    for file in _files(path, model):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
