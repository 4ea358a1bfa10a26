"""Run a saved simulation."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from razordeploy.backends.base import RuntimeOp
from razordeploy.errors import BackendError, DataError


class AcademicRunner:
    """The simulated, or the float, model as torch runs it.

    Args:
        path: the exported program; ``plan.json`` lies beside it.
        threads: threads for one call; 0 leaves torch's own setting.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.threads = threads
        try:
            inputs = json.loads(path.with_name("plan.json").read_text())["inputs"]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's remarks about its own internals
                self._module = torch.export.load(path).module()
        except (OSError, ValueError, RuntimeError) as error:
            raise BackendError(f"torch cannot load {path}: {str(error).strip().splitlines()[0]}") from error
        self.input_names = tuple(entry["name"] for entry in inputs)
        self._dtypes = tuple(np.dtype(entry["dtype"]) for entry in inputs)

    def __call__(self, *inputs: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """Run one batch of ``(N, ...)`` arrays; one output comes back bare, several as a tuple."""
        if len(inputs) != len(self._dtypes):
            raise DataError(f"expected {len(self._dtypes)} inputs {self.input_names}, got {len(inputs)}")
        tensors = [torch.from_numpy(np.array(x, dtype=d)) for x, d in zip(inputs, self._dtypes, strict=True)]
        before = torch.get_num_threads()
        if self.threads:
            torch.set_num_threads(self.threads)  # torch has one number of threads a process: lent for one call
        try:
            with torch.inference_mode():
                outputs = self._module(*tensors)
        finally:
            torch.set_num_threads(before)
        values = tuple(t.numpy() for t in torch.utils._pytree.tree_leaves(outputs))
        return values[0] if len(values) == 1 else values

    def runtime_ops(self) -> list[RuntimeOp]:
        """Nothing: there is no engine, and no kernel computes in integers."""
        return []


def load(folder: Path, files: Mapping[str, str], role: str, threads: int) -> AcademicRunner:
    """Load the simulation (role ``engine``) or the ``float`` model of an artifact folder."""
    return AcademicRunner(folder / files[role], threads)
