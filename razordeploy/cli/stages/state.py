"""What a pipeline has done so far: ``pipeline.json`` in its work dir, with the hash of every file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from razordeploy.artifact import Artifact
from razordeploy.errors import RazorDeployError
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text, jsonable

STATE = "pipeline.json"
FORMAT = "razordeploy-pipeline"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Done:
    """One stage that has run."""

    stage: str
    key: str
    """Hash of all that it depends on; another one: it has to run again."""
    source: str | None
    exit_code: int
    seconds: float
    artifacts: Mapping[str, Any]
    """By folder, relative to the work dir: ``id``, ``kind`` and the SHA-256 of each file."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    @property
    def complete(self) -> bool:
        """Whether it made all that it was to make; a check that failed does not count."""
        return self.error is None and self.exit_code < 2


class State:
    """The stages that have run, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, Done] = {}
        self.about: dict[str, Any] = {}

    @classmethod
    def read(cls, folder: Path) -> State:
        """What a work dir says of itself; nothing where it cannot be read, so that all is done again."""
        state = cls(folder)
        try:
            found = json.loads((folder / STATE).read_text(encoding="utf-8"))
            if found["format"] == FORMAT and found["format_version"] == FORMAT_VERSION:
                state.done = {name: Done(**entry) for name, entry in found["stages"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            state.done = {}
        return state

    def write(self) -> None:
        """Put it on disk, whole or not at all."""
        content = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **self.about,
            "stages": {name: asdict(done) for name, done in self.done.items()},
        }
        atomic_write(self.folder / STATE, json_text(jsonable(content, STATE)))

    def is_current(self, name: str, key: str) -> bool:
        """Whether a stage has run with just this, and left what is still there as it was."""
        done = self.done.get(name)
        if done is None or done.key != key or not done.complete or not done.artifacts:
            return False
        try:
            for folder, entry in done.artifacts.items():
                artifact = Artifact.load(self.folder / folder)
                artifact.verify()
                if artifact.id != entry["id"]:
                    return False
        except RazorDeployError:
            return False
        return True

    def model_of(self, name: str) -> Artifact:
        """The one artifact of a stage that makes a model."""
        return Artifact.load(self.folder / next(iter(self.done[name].artifacts)))

    def entry(self, folder: Path) -> dict[str, Any]:
        """What is noted of an artifact."""
        artifact = Artifact.load(folder)
        return {"id": artifact.id, "kind": artifact.kind, "sha256": dict(artifact.sha256)}


def key_of(content: Mapping[str, Any]) -> str:
    """Hash of what a stage depends on."""
    text = json.dumps(jsonable(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
