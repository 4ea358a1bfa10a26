"""Keep calibration statistics on disk, so that a second run, another backend or an interrupted run starts from them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import torch

from razordeploy.capture.graph import CapturedModel
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.statistics import Statistics, requests
from razordeploy.storage import atomic_write


def statistics_key(captured: CapturedModel, data_fingerprint: str) -> str:
    """Hash of the graph, its parameters and the calibration data."""
    digest = hashlib.sha256(captured.graph_module.code.encode())
    for name, tensor in [*captured.graph_module.named_parameters(), *captured.graph_module.named_buffers()]:
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy() if tensor.dim() else repr(tensor.item()).encode())
    digest.update(data_fingerprint.encode())
    return digest.hexdigest()[:24]


class StatisticsCache:
    """Statistics of one model on one data set; ``done`` batches of an unfinished pass are kept too."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / f"statistics-{key}.pt"

    def load(self, plans: Sequence[QuantPlan]) -> tuple[Statistics, int, bool] | None:
        """``(statistics, batches done, complete)`` if they cover ``plans``; None otherwise, also for a damaged file."""
        if not self.path.is_file():
            return None
        try:
            saved = torch.load(self.path, weights_only=True)
        except Exception:  # a damaged cache only costs a new pass
            return None
        statistics = Statistics(samples=int(saved["samples"]))
        for node, observer_spec in requests(plans):
            state = saved["observers"].get(f"{node}|{observer_spec}")
            if state is None:
                return None
            observer = build_observer(observer_spec.config)
            observer.load_state_dict(state)
            statistics.observers[(node, observer_spec)] = observer
        return statistics, int(saved["batches"]), bool(saved["complete"])

    def save(self, statistics: Statistics, *, batches: int, complete: bool) -> None:
        """Write atomically."""
        observers = {f"{node}|{spec}": o.state_dict() for (node, spec), o in statistics.observers.items()}
        buffer = io.BytesIO()
        torch.save(
            {"observers": observers, "samples": statistics.samples, "batches": batches, "complete": complete}, buffer
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, buffer.getvalue())
