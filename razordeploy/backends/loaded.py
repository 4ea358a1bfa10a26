"""An engine loaded from its artifact: run it, prove its int8 kernels, time it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from razordeploy.artifact import Artifact, TensorSpec
from razordeploy.backends.base import Coverage, Latency, RuntimeOp
from razordeploy.backends.harness import coverage, interleaved_latency
from razordeploy.backends.registry import find_backend
from razordeploy.errors import DataError, MissingDependency, RazorDeployError, UsageError
from razordeploy.quantization.stored import read_plan


class Engine:
    """One backend engine (or its float twin) with the artifact it came from."""

    def __init__(self, artifact: Artifact, role: str = "engine", threads: int = 0) -> None:
        name = str(artifact.params.get("backend", ""))
        if not name:
            raise UsageError(
                f"expected an engine at {artifact.path}, found a '{artifact.kind}' artifact of stage '{artifact.stage}'"
            )
        self.artifact = artifact
        self.backend = find_backend(name)
        if role not in artifact.files:
            raise no_engine(artifact, role)
        self.runner = self.backend.load(artifact.path, artifact.files, role, threads)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in call order."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, shapes (None: dynamic) and dtypes of the inputs, in call order."""
        return self.artifact.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The same of the outputs."""
        return self.artifact.outputs

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch.

        Args:
            inputs: one array per input, for images ``(N, C, H, W)`` float32.

        Returns:
            One array, or a tuple where the model has several outputs.

        Raises:
            DataError: another number of inputs, another shape or dtype than the model takes.
        """
        return self.runner(*checked_inputs(inputs, self.inputs))

    def runtime_ops(self) -> list[RuntimeOp]:
        """Operations of the engine's own graph, with the precision each kernel computes in."""
        return self.runner.runtime_ops()

    def coverage(self) -> Coverage:
        """Planned against actual int8 operations, read from the engine's own graph."""
        return coverage(read_plan(self.artifact.file("plan"))[0].ops, self.runner.runtime_ops())

    def benchmark(self, batch: int = 1, seconds: float = 3.0) -> Latency:
        """Latency percentiles on random inputs of this batch size.

        Raises:
            UsageError: the engine was made for another, fixed batch size.
        """
        return interleaved_latency({"engine": self.runner}, self.random_inputs(batch), seconds=seconds)["engine"]

    def random_inputs(self, batch: int = 1, seed: int = 0) -> list[np.ndarray]:
        """Normally distributed inputs ``(batch, ...)``, small integers where the model takes integers."""
        return random_arrays(self.inputs, batch, seed, str(self.artifact.path))


def no_engine(artifact: Artifact, role: str = "engine") -> RazorDeployError:
    """The error that says why ``artifact`` has no engine, and what makes one."""
    name = str(artifact.params.get("backend", ""))
    lacking = find_backend(name).absent() if "onnx" in artifact.files else None
    if lacking is not None:
        return MissingDependency(f"{artifact.path} holds the graph, no {role}: {lacking}")
    if "onnx" in artifact.files:
        hint = f"razordeploy convert {artifact.path} --backend {name}"
        return UsageError(f"{artifact.path} holds the graph, no {role}", hint=hint)
    return UsageError(f"{artifact.path} has no {role}: backend '{name}' only simulates")


def load_engine(path: Artifact | str | os.PathLike[str], *, threads: int = 0) -> Engine:
    """Load an engine from an artifact, its folder, or a work dir that holds exactly one.

    Args:
        path: what ``ptq`` returned or wrote.
        threads: inference threads; 0: the engine's own choice.

    Raises:
        UsageError: nothing there, several engines, or files that are not those that were written.
        MissingDependency: its runtime is not installed.
    """
    artifact = path if isinstance(path, Artifact) else Artifact.load(only_engine(Path(path)))
    artifact.verify()
    return Engine(artifact, threads=threads)


def engine_folders(path: Path) -> list[Path]:
    """Folders of all engines at ``path``: itself, or those of a work dir."""
    if (path / "manifest.json").is_file() or path.name == "manifest.json":
        return [path]
    return sorted(p.parent for p in path.glob("*/manifest.json")) if path.is_dir() else []


def only_engine(path: Path) -> Path:
    """The folder of the one engine at ``path``.

    Raises:
        UsageError: several of them.
    """
    found = engine_folders(path)
    if len(found) > 1:
        raise UsageError(f"{path} holds {len(found)} engines", hint=f"give one: {', '.join(str(f) for f in found)}")
    return found[0] if found else path


def random_arrays(specs: Sequence[TensorSpec], batch: int, seed: int, where: str) -> list[np.ndarray]:
    """Normally distributed arrays ``(batch, ...)``, zeros and ones for integers.

    Raises:
        UsageError: ``where`` fixes another batch, or leaves more than the batch open.
    """
    generator = np.random.default_rng(seed)
    arrays = []
    for spec in specs:
        fixed = spec.shape[0] if spec.shape else None
        if fixed not in (None, batch):
            raise UsageError(f"{where} was made for batch {fixed}, asked for {batch}")
        if None in spec.shape[1:]:
            raise UsageError(f"{where} leaves more than the batch of '{spec.name}' open: {spec.shape}")
        shape = tuple(batch if s is None else s for s in spec.shape)
        if spec.dtype.startswith(("int", "uint", "bool")):
            arrays.append(generator.integers(0, 2, shape).astype(spec.dtype))
        else:
            arrays.append(generator.standard_normal(shape).astype(spec.dtype))
    return arrays


def checked_inputs(inputs: Sequence[np.ndarray], specs: Sequence[TensorSpec]) -> list[np.ndarray]:
    """The inputs as arrays of the specs' types.

    Raises:
        DataError: another number of inputs, another shape or kind of number.
    """
    if len(inputs) != len(specs):
        names = ", ".join(s.name for s in specs)
        raise DataError(f"expected {len(specs)} input{'s' * (len(specs) != 1)} ({names}), got {len(inputs)}")
    return [_array(value, spec) for value, spec in zip(inputs, specs, strict=True)]


def _array(given: object, spec: TensorSpec) -> np.ndarray:
    where = f"input '{spec.name}'"
    try:
        value = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: expected an array, got {type(given).__name__}: {error}") from error
    if value.ndim != len(spec.shape) or any(e not in (None, a) for e, a in zip(spec.shape, value.shape, strict=True)):
        wanted = ", ".join("N" if s is None else str(s) for s in spec.shape)
        raise DataError(f"{where}: expected shape ({wanted}), got {value.shape}")
    if 0 in value.shape:
        raise DataError(f"{where}: expected at least one sample, got shape {value.shape}")
    wanted_dtype = np.dtype(spec.dtype)
    # Another width of the same kind is converted. An image of bytes is not: it was never normalised.
    if value.dtype.kind != wanted_dtype.kind:
        hint = "scale and normalise the images as in training first" if value.dtype == np.uint8 else None
        raise DataError(f"{where}: expected {spec.dtype}, got {value.dtype}", hint=hint)
    return np.ascontiguousarray(value, dtype=wanted_dtype)
