"""Run an AOTInductor package and tell what its kernels compute in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from razordeploy.backends.base import RuntimeOp
from razordeploy.backends.torch_native.compiler import quiet
from razordeploy.errors import BackendError, DataError

_ROLES = {"model.pt2": "engine", "float.pt2": "float"}


@dataclass(frozen=True, kw_only=True)
class _Input:
    """One input that the package was compiled for."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> _Input:
        return cls(name=entry["name"], shape=tuple(entry["shape"]), dtype=np.dtype(entry["dtype"]))

    def tensor(self, array: np.ndarray) -> torch.Tensor:
        """A fresh copy: the generated code reads memory unchecked, as it was compiled for, and adds into its inputs."""
        fits = array.ndim == len(self.shape) and all(map(_fits, self.shape, array.shape))
        if not fits or not np.can_cast(array.dtype, self.dtype, "same_kind"):
            sizes = ", ".join("N" if s is None else str(s) for s in self.shape)
            raise DataError(
                f"input '{self.name}': expected ({sizes}) {self.dtype}, got {array.shape} {array.dtype}",
                hint="the package is compiled for these sizes",
            )
        return torch.from_numpy(np.array(array, dtype=self.dtype, order="C"))


def _fits(size: int | None, given: int) -> bool:
    return size is None or size == given


class TorchNativeRunner:
    """A loaded package.

    Args:
        path: the ``.pt2``; ``runtime_graph.json`` lies beside it.
        threads: inference threads; 0 leaves torch's own setting.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path, self.threads = path, threads
        try:
            described = json.loads(path.with_name("runtime_graph.json").read_text())
            with quiet():
                model = torch._inductor.aoti_load_package(str(path))
        except (OSError, ValueError, RuntimeError) as error:
            raise BackendError(f"torch cannot load {path}: {str(error).strip().splitlines()[0]}") from error
        # The model's own call reads its signature from JSON every time: 20 us, four hundredths of a ResNet-20.
        self._run = model.loader.boxed_run
        self._ops = described[_ROLES.get(path.name, "engine")]
        self._inputs = tuple(_Input.of(entry) for entry in described["inputs"])
        self.input_names = tuple(entry.name for entry in self._inputs)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch of ``(N, ...)`` arrays; one output comes back bare, several as a tuple.

        Raises:
            DataError: number, shape or dtype of the arrays is not what the package was compiled for.
        """
        if len(inputs) != len(self._inputs):
            raise DataError(f"expected {len(self._inputs)} inputs {self.input_names}, got {len(inputs)}")
        tensors = [entry.tensor(x) for x, entry in zip(inputs, self._inputs, strict=True)]
        try:
            with _threads(self.threads):
                outputs = self._run(tensors)
        except RuntimeError as error:
            raise BackendError(f"{self.path} failed to run: {str(error).strip().splitlines()[0]}") from error
        return outputs[0].numpy() if len(outputs) == 1 else tuple(t.numpy() for t in outputs)

    def runtime_ops(self) -> list[RuntimeOp]:
        """Operations of the compiler's last graph, as it wrote them down when it generated the code."""
        return [RuntimeOp(**{**op, "origins": tuple(op["origins"])}) for op in self._ops]


@contextmanager
def _threads(wanted: int) -> Iterator[None]:
    """Torch has one number of threads a process: lend it ``wanted`` for one call."""
    before = torch.get_num_threads()
    if not wanted or wanted == before:
        yield
        return
    torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def load(folder: Path, files: Mapping[str, str], role: str, threads: int) -> TorchNativeRunner:
    """Load the ``engine`` or the ``float`` twin of an artifact folder."""
    return TorchNativeRunner(folder / files[role], threads)
