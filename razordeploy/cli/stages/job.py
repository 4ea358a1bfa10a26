"""What a stage is told, and what it leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from razordeploy.config.stages import StageConfig


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """One stage that is about to run."""

    config: StageConfig
    recipe: str
    """Path of the recipe that it follows."""
    overrides: Mapping[str, str]
    """Dotted key -> value as text: what makes the recipe's model that of the stage before, and the stage's own."""
    folder: Path
    """Gets the artifact, or one for each backend."""
    scratch: Path
    """For what is only needed while the stage works; what an interrupted training left is there."""
    parent: str | None
    """Id of the artifact that the model comes from."""
    goes_on: bool
    """True: the recipe's checkpoint is the model that comes in, not where one would go."""
    resume: bool
    """Go on from what is in ``scratch``."""
    command: str
    """What the user typed."""


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """A stage that has come to its end."""

    artifacts: Mapping[str, Path]
    """Folders, by backend where there are several and under ``""`` where there is one."""
    exit_code: int = 0
    """As of the verb: 0, 1 (a check failed), 3 (a backend is missing), 128 + signal."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What was measured: of a model ``top1``, ``params`` and ``macs``; of engines the fields of ``report.json``."""
