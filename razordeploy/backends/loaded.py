"""An engine loaded from its artifact: run it, prove its int8 kernels, time it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from razordeploy.artifact import Artifact, TensorSpec
from razordeploy.backends.base import Coverage, Latency, RuntimeOp
from razordeploy.backends.harness import coverage, interleaved_latency
from razordeploy.backends.registry import find_backend
from razordeploy.errors import DataError, UsageError
from razordeploy.quantization.plan import PlannedOp


class Engine:
    """One backend engine (or its float twin) with the artifact it came from."""

    def __init__(self, artifact: Artifact, role: str = "engine", threads: int = 0) -> None:
        name = str(artifact.params.get("backend", ""))
        if not name:
            raise UsageError(f"{artifact.path} is no engine: it was made by stage '{artifact.stage}'")
        self.artifact = artifact
        self.backend = find_backend(name)
        self.runner = self.backend.load(artifact.path, artifact.files, role, threads)

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
        return self.runner(*_checked(inputs, self.artifact))

    def runtime_ops(self) -> list[RuntimeOp]:
        """Operations of the engine's own graph, with the precision each kernel computes in."""
        return self.runner.runtime_ops()

    def coverage(self) -> Coverage:
        """Planned against actual int8 operations, read from the engine's own graph."""
        record = json.loads(self.artifact.file("plan").read_text())
        return coverage([PlannedOp(**op) for op in record["ops"]], self.runner.runtime_ops())

    def benchmark(self, batch: int = 1, seconds: float = 3.0) -> Latency:
        """Latency percentiles on random inputs of this batch size.

        Raises:
            UsageError: the engine was made for another, fixed batch size.
        """
        return interleaved_latency({"engine": self.runner}, self.random_inputs(batch), seconds=seconds)["engine"]

    def random_inputs(self, batch: int = 1, seed: int = 0) -> list[np.ndarray]:
        """Normally distributed inputs ``(batch, ...)``, small integers where the model takes integers."""
        generator = np.random.default_rng(seed)
        arrays = []
        for spec in self.inputs:
            fixed = spec.shape[0] if spec.shape else None
            if fixed not in (None, batch):
                raise UsageError(f"{self.artifact.path} was made for batch {fixed}, asked for {batch}")
            shape = tuple(batch if s is None else s for s in spec.shape)
            if spec.dtype.startswith(("int", "uint", "bool")):
                arrays.append(generator.integers(0, 2, shape).astype(spec.dtype))
            else:
                arrays.append(generator.standard_normal(shape).astype(spec.dtype))
        return arrays


def load_engine(path: Artifact | str | os.PathLike[str], *, threads: int = 0) -> Engine:
    """Load an engine from an artifact, its folder, or a work dir that holds exactly one.

    Args:
        path: what ``ptq`` returned or wrote.
        threads: inference threads; 0: the engine's own choice.

    Raises:
        UsageError: nothing there, or several engines.
        MissingDependency: its runtime is not installed.
    """
    return Engine(path if isinstance(path, Artifact) else Artifact.load(_only_engine(Path(path))), threads=threads)


def engine_folders(path: Path) -> list[Path]:
    """Folders of all engines at ``path``: itself, or those of a work dir."""
    if (path / "manifest.json").is_file() or path.name == "manifest.json":
        return [path]
    return sorted(p.parent for p in path.glob("*/manifest.json")) if path.is_dir() else []


def _only_engine(path: Path) -> Path:
    found = engine_folders(path)
    if len(found) > 1:
        raise UsageError(f"{path} holds {len(found)} engines", hint=f"give one: {', '.join(str(f) for f in found)}")
    return found[0] if found else path


def _checked(inputs: Sequence[np.ndarray], artifact: Artifact) -> list[np.ndarray]:
    specs = artifact.inputs
    if len(inputs) != len(specs):
        raise DataError(f"expected {len(specs)} inputs ({', '.join(s.name for s in specs)}), got {len(inputs)}")
    checked = []
    for array, spec in zip(inputs, specs, strict=True):
        value = np.asarray(array)
        fits = value.ndim == len(spec.shape) and all(
            e in (None, a) for e, a in zip(spec.shape, value.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("N" if s is None else str(s) for s in spec.shape)
            raise DataError(f"input '{spec.name}': expected shape ({wanted}), got {value.shape}")
        if value.dtype != spec.dtype and not np.can_cast(value.dtype, spec.dtype, "same_kind"):
            raise DataError(f"input '{spec.name}': expected {spec.dtype}, got {value.dtype}")
        checked.append(np.ascontiguousarray(value, dtype=spec.dtype))
    return checked
