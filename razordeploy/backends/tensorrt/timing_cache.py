"""Kernel timings from earlier builds; a sidecar says for which TensorRT and GPU they were measured."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from razordeploy.errors import StorageError
from razordeploy.storage import atomic_write


def cache_dir() -> Path:
    """``$XDG_CACHE_HOME/razordeploy/tensorrt``, else below ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "razordeploy" / "tensorrt"


class TimingCache:
    """The timings of one TensorRT version on one kind of GPU.

    Args:
        folder: where the caches of all of them lie.
        version: TensorRT's.
        capability: the GPU's compute capability, as in ``8.9``.
    """

    def __init__(self, folder: Path, version: str, capability: str) -> None:
        self.path = folder / f"trt{version}-sm{capability.replace('.', '')}.cache"
        self.sidecar = self.path.with_suffix(".json")
        self.identity = {"tensorrt": version, "compute_capability": capability}

    def read(self) -> bytes:
        """The timings; empty where there are none, or none that the sidecar vouches for."""
        try:
            content = self.path.read_bytes()
            said = json.loads(self.sidecar.read_text())
        except (OSError, ValueError):
            return b""
        return content if isinstance(said, Mapping) and said == self._sidecar(content) else b""

    def write(self, content: bytes) -> None:
        """Keep ``content`` for the next build; a cache that cannot be written is no reason to fail."""
        try:
            atomic_write(self.path, content)
            atomic_write(self.sidecar, json.dumps(self._sidecar(content), indent=1) + "\n")
        except StorageError:
            return

    def _sidecar(self, content: bytes) -> dict[str, str]:
        return {**self.identity, "sha256": hashlib.sha256(content).hexdigest()}
