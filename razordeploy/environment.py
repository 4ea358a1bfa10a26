"""What a run ran on: package versions and the processor's integer instructions."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

_ALWAYS = ("razordeploy", "torch", "numpy")
_INTERESTING = ("avx2", "avx512f", "avx512bw", "avx_vnni", "avx512_vnni", "amx_int8", "amx_bf16", "asimddp")


def versions(packages: Iterable[str] = ()) -> dict[str, str]:
    """Installed version of each distribution; what is not installed is left out."""
    found = {}
    for name in dict.fromkeys((*_ALWAYS, *packages)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def cpu_name() -> str:
    """Name of the processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Vector instructions that decide how int8 kernels run; ``avx512_vnni`` or ``avx_vnni`` means no saturation."""
    flags = set(_cpuinfo("flags").split()) | set(_cpuinfo("Features").split())
    return [flag for flag in _INTERESTING if flag in flags]


def threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
