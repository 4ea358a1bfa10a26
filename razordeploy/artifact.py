"""What a stage leaves behind: a directory whose manifest says what is in it, who made it and from what."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from razordeploy.errors import UsageError, nearest
from razordeploy.storage import FORMAT, MANIFEST, atomic_write, recover, staged_directory
from razordeploy.strict_json import json_text, jsonable

__all__ = ["KINDS", "Artifact", "TensorSpec", "artifact_id", "atomic_write", "staged_directory", "write_artifact"]

KINDS = ("float", "supernet", "subnet", "sliced", "quantized", "engine")
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    """The name the engine knows it by."""
    shape: tuple[int | None, ...]
    """Sizes in layout order, for example (N, C, H, W); None is a dynamic axis."""
    dtype: str
    """NumPy's name: float32, int64, ..."""


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A stage's result on disk; read without torch and never changed once written."""

    path: Path
    """The directory."""
    kind: str
    """One of ``KINDS``."""
    stage: str
    """The stage that made it: train, ptq, qat, slice, openvino, ..."""
    files: Mapping[str, str]
    """Role to file name, relative to ``path``: {"graph": "model.xml", "weights": "model.bin"}."""
    sha256: Mapping[str, str] = field(repr=False)
    """Role to the file's SHA-256 in hex."""
    inputs: tuple[TensorSpec, ...] = ()
    """In call order."""
    outputs: tuple[TensorSpec, ...] = ()
    """In return order."""
    parent: str | None = None
    """The id of the artifact it was made from; None for the first of a chain."""
    params: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The stage's resolved parameters; part of the id."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What was measured, unit in the key: top1 (percent), latency_ms, size_bytes."""
    versions: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Package to version; not part of the id."""
    id: str
    """SHA-256 over kind, stage, parent, params and file hashes."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Artifact:
        """Read an artifact from its directory or its ``manifest.json``; no file but the manifest is opened.

        Raises:
            UsageError: nothing there, or not a manifest that this version wrote.
        """
        given = Path(path)
        folder = given.parent if given.name == MANIFEST else given
        if folder.parent.is_dir():
            recover(folder.resolve())
        manifest = _read_manifest(folder)
        try:
            files = dict(manifest["files"])
            artifact = cls(
                path=folder,
                kind=manifest["kind"],
                stage=manifest["stage"],
                files={role: _inside(folder, entry["name"]) for role, entry in files.items()},
                sha256={role: str(entry["sha256"]) for role, entry in files.items()},
                inputs=tuple(map(_tensor_spec, manifest["inputs"])),
                outputs=tuple(map(_tensor_spec, manifest["outputs"])),
                parent=manifest["parent"],
                params=dict(manifest["params"]),
                metrics=dict(manifest["metrics"]),
                versions=dict(manifest["versions"]),
                id=manifest["id"],
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(folder, f"{type(error).__name__} {error}") from error
        if artifact.kind not in KINDS:
            raise _damaged(folder, f"kind {artifact.kind!r}, {nearest(str(artifact.kind), KINDS)}")
        return artifact

    def file(self, role: str) -> Path:
        """Return the path of the file with this role."""
        if role not in self.files:
            raise UsageError(f"{self.path} has no file with the role '{role}'", hint=nearest(role, self.files))
        return self.path / self.files[role]

    def verify(self) -> None:
        """Hold every file and the id against the manifest.

        Raises:
            UsageError: a file is missing or was changed, or the manifest was edited.
        """
        for role in self.files:
            path = self.file(role)
            if not path.is_file():
                raise _damaged(self.path, f"the file {path.name} ({role}) is missing")
            if _file_sha256(path) != self.sha256[role]:
                raise _damaged(self.path, f"the file {path.name} ({role}) was changed after it was written")
        expected = artifact_id(
            kind=self.kind, stage=self.stage, parent=self.parent, params=self.params, sha256=self.sha256
        )
        if expected != self.id:
            raise _damaged(self.path, f"{MANIFEST} was edited: the id does not match")


def artifact_id(
    *, kind: str, stage: str, parent: str | None, params: Mapping[str, Any], sha256: Mapping[str, str]
) -> str:
    """Hash what makes an artifact what it is; the order of keys, the place and the time do not matter."""
    content = jsonable({"kind": kind, "stage": stage, "parent": parent, "params": params, "sha256": sha256})
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_artifact(
    staged: Path,
    *,
    kind: str,
    stage: str,
    files: Mapping[str, str],
    inputs: Iterable[TensorSpec] = (),
    outputs: Iterable[TensorSpec] = (),
    parent: str | None = None,
    params: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
) -> str:
    """Commit what a stage wrote into ``staged`` and return the artifact's id.

    The manifest comes last: a directory without one is not an artifact. ``files`` maps roles to names relative to
    ``staged``. Once ``staged_directory`` is left, read the result with ``Artifact.load(target)``.

    Raises:
        UsageError: an unknown kind, a file that is not there or outside of ``staged``.
        StorageError: disk full, no permission.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown artifact kind '{kind}'", hint=nearest(kind, KINDS))
    entries: dict[str, dict[str, Any]] = {}
    for role, name in files.items():
        path = staged / _inside(staged, name)
        if not path.is_file():
            raise UsageError(f"the file '{name}' ({role}) is not in {staged}")
        entries[role] = {"name": name, "sha256": _file_sha256(path), "size_bytes": path.stat().st_size}
    hashes = {role: entry["sha256"] for role, entry in entries.items()}
    identity = artifact_id(kind=kind, stage=stage, parent=parent, params=params or {}, sha256=hashes)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "id": identity,
        "kind": kind,
        "stage": stage,
        "parent": parent,
        "files": entries,
        "inputs": [asdict(spec) for spec in inputs],
        "outputs": [asdict(spec) for spec in outputs],
        "params": params or {},
        "metrics": metrics or {},
        "versions": versions or {},
    }
    atomic_write(staged / MANIFEST, json_text(manifest))
    return identity


def _read_manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        below = sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else []
        hint = f"give one of its folders: {', '.join(below)}" if below else "give the folder that a stage wrote"
        raise UsageError(f"expected an artifact at {folder}, found no {MANIFEST}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, f"not JSON, {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {folder / MANIFEST}: {error.strerror}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UsageError(
            f'{folder / MANIFEST} was not written by razordeploy: expected "format": "{FORMAT}"',
            hint="give the folder that a stage wrote",
        )
    if manifest.get("format_version") != FORMAT_VERSION:
        raise UsageError(
            f"{folder / MANIFEST} has format version {manifest.get('format_version')}, expected {FORMAT_VERSION}",
            hint="make it again, or read it with the razordeploy that wrote it",
        )
    return manifest


def _damaged(folder: Path, what: str) -> UsageError:
    return UsageError(f"the artifact at {folder} is damaged: {what}", hint="run the stage that made it again")


def _tensor_spec(entry: Mapping[str, Any]) -> TensorSpec:
    sizes = tuple(None if size is None else int(size) for size in entry["shape"])
    return TensorSpec(name=str(entry["name"]), shape=sizes, dtype=str(entry["dtype"]))


def _inside(folder: Path, name: str) -> str:
    """Return ``name`` if it stays in ``folder``, symbolic links followed."""
    pure = PurePosixPath(name)
    root = folder.resolve()
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or not (root / name).resolve().is_relative_to(root):
        raise UsageError(f"the file name '{name}' leads out of {folder}")
    return name


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
