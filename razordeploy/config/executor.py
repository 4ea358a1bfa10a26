"""The ``executor`` key of recipes and studies: where tasks run, how many at once, and what each may use."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError, nearest

_KEYS = {
    "local": (),
    "inline": (),
    "ray": ("address",),
    "slurm": ("cluster", "options", "poll_s"),
}
"""Type -> keys that only it has."""
_SHARED = ("type", "max_parallel", "cpus", "gpus", "memory_gb", "timeout_s")
_CLUSTERS = ("slurm", "local", "debug")


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig:
    """Where tasks run. The resources are those of one task."""

    type: str = "local"
    """``local`` (processes of this machine), ``inline`` (this process), ``ray`` or ``slurm``."""
    max_parallel: int = 1
    """Tasks that run at once."""
    cpus: int | None = None
    """Threads of a task; None: the machine's, divided by ``max_parallel`` (1 where the machine is another one)."""
    gpus: int = 0
    memory_gb: float | None = None
    """Gigabytes (1e9 bytes) a task may hold; None: no limit."""
    timeout_s: float | None = None
    """Seconds after which a task is ended; None: never."""
    address: str | None = None
    """Of a Ray cluster (``auto``, ``host:6379``); None: the one that is connected, or a new one on this machine."""
    cluster: str = "slurm"
    """What submitit submits to: ``slurm``, or its own ``local`` and ``debug``."""
    options: dict[str, Any] = field(default_factory=dict)
    """More of submitit's parameters, such as ``slurm_partition``."""
    poll_s: float = 1.0
    """Seconds between two looks at a Slurm job."""

    @classmethod
    def parse(cls, value: object, file: str, where: str = "executor") -> ExecutorConfig:
        """Read the key ``where`` of ``file``: a dict, or just the type's name.

        Raises:
            RecipeError: an unknown type or key, or a value of the wrong type.
        """
        values = {"type": value} if isinstance(value, str) else value
        kind = values.get("type", cls.type) if isinstance(values, dict) else cls.type
        if kind not in _KEYS:
            raise RecipeError(f"{file}: unknown executor {kind!r} in '{where}'", hint=nearest(str(kind), _KEYS))
        section = Section.of(values, file, where, (*_SHARED, *_KEYS[kind]))
        options = section.values.get("options")
        if options is not None and not isinstance(options, dict):
            raise section.error("options", "a dict of submitit's parameters")
        cluster = section.string("cluster") or cls.cluster
        if cluster not in _CLUSTERS:
            raise section.error("cluster", f"one of {', '.join(_CLUSTERS)}")
        return cls(
            type=kind,
            max_parallel=section.integer("max_parallel", low=1) or 1,
            cpus=section.integer("cpus", low=1),
            gpus=section.integer("gpus", low=0) or 0,
            memory_gb=_positive(section, "memory_gb"),
            timeout_s=_positive(section, "timeout_s"),
            address=section.string("address"),
            cluster=cluster,
            options=dict(options or {}),
            poll_s=_positive(section, "poll_s") or cls.poll_s,
        )


def _positive(section: Section, key: str) -> float | None:
    value = section.number(key, low=0.0)
    if value == 0:
        raise section.error(key, "a number above 0")
    return value
