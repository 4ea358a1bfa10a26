"""Keep calibration statistics on disk, so that a second run, another backend or an interrupted run starts from them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from razordeploy import __version__
from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.statistics import Key, Statistics, requests
from razordeploy.storage import atomic_write


@dataclass(kw_only=True)
class Pass:
    """One pass over the calibration data, finished or not."""

    statistics: Statistics
    batches: int = 0
    """Batches observed."""
    complete: bool = False
    """True: the data ended."""
    notes: list[str] = field(default_factory=list)
    """Warnings about the data."""
    head: tuple[torch.Tensor, ...] = ()
    """Inputs of the first few samples, ``(N, ...)`` each, to measure on what statistics cannot tell."""
    seen: set[str] = field(default_factory=set)
    """Digests of the samples, to tell whether evaluation uses the same ones."""


def model_digest(captured: CapturedModel) -> str:
    """Hash of the graph, its parameters and its buffers; memory layout does not count."""
    digest = hashlib.sha256(captured.graph_module.code.encode())
    for name, tensor in [*captured.graph_module.named_parameters(), *captured.graph_module.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def statistics_key(captured: CapturedModel, data_fingerprint: str) -> str:
    """Hash of the model, the calibration data and the versions that observe it."""
    text = f"{model_digest(captured)} {data_fingerprint} {__version__} {torch.__version__}"
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class StatisticsCache:
    """Statistics of one model on one data set, in a file of their own; those of an unfinished pass in another."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"statistics-{key}.pt"
        self.partial = folder / f"statistics-{key}.partial.pt"

    def load(self, plans: Sequence[QuantPlan]) -> Pass | None:
        """The finished pass if it covers ``plans``, else an unfinished one that does; None also for a damaged file."""
        wanted = requests(plans)
        return _read(self.path, wanted) or _read(self.partial, wanted)

    def save(self, done: Pass) -> None:
        """Write atomically; what an earlier pass over the same data observed for other backends is kept."""
        observers = {_name(key): o.state_dict() for key, o in done.statistics.observers.items()}
        if done.complete:
            observers = {**(_raw(self.path) or {"observers": {}})["observers"], **observers}
        content = {
            "observers": observers,
            "samples": done.statistics.samples,
            "batches": done.batches,
            "complete": done.complete,
            "notes": list(done.notes),
            "seen": sorted(done.seen),
            "head": list(done.head),
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        atomic_write(self.path if done.complete else self.partial, buffer.getvalue())
        if done.complete:
            self.partial.unlink(missing_ok=True)


def _name(key: Key) -> str:
    return f"{key[0]}|{key[1]}"


def _raw(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        saved = torch.load(path, weights_only=True)
    except Exception:  # whatever is wrong with a damaged file, it only costs a new pass
        return None
    return saved if isinstance(saved, dict) and isinstance(saved.get("observers"), dict) else None


def _read(path: Path, wanted: Sequence[Key]) -> Pass | None:
    saved = _raw(path)
    if saved is None or not {_name(key) for key in wanted} <= set(saved["observers"]):
        return None
    try:
        statistics = Statistics(samples=int(saved["samples"]))
        for key in wanted:
            observer = build_observer(key[1].config)
            observer.load_state_dict(saved["observers"][_name(key)])
            statistics.observers[key] = observer
        return Pass(
            statistics=statistics,
            batches=int(saved["batches"]),
            complete=bool(saved["complete"]),
            notes=[str(note) for note in saved["notes"]],
            seen={str(digest) for digest in saved["seen"]},
            head=tuple(saved["head"]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError):  # written by another version: a new pass
        return None
