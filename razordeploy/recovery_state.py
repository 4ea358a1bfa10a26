"""Finished steps of a recovery on disk, so that an interrupted run goes on where it was."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from razordeploy.quantization.draft import Draft, draft_state, restored_draft
from razordeploy.storage import atomic_write


@dataclass(kw_only=True)
class RecoveryState:
    """How far a recovery is."""

    start: float
    """Points that the plain engine loses."""
    drop: float
    """Points that the best engine so far loses."""
    algorithms: list[dict[str, Any]] = field(default_factory=list)
    """What made the best draft."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """What each step bought and cost, for the report."""
    apart: dict[str, float] | None = None
    """Without labels: what the simulation loses that rounds weights or activations alone; None: not measured yet."""
    ranking: list[tuple[str, str, float]] | None = None
    """Operations with module and SQNR in dB, the most harmful first; None: not measured yet."""


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a file holds."""

    state: RecoveryState
    draft: dict[str, Any]
    base: dict[str, Any] | None
    """Of the best draft before operations went back to float; None: it did not come to that."""

    def restored(self, plain: Draft) -> Draft:
        """The best draft, made of the plain one."""
        return restored_draft(plain, self.draft)

    def restored_base(self, plain: Draft) -> Draft | None:
        """The best draft before operations went back to float."""
        return None if self.base is None else restored_draft(plain, self.base)


@dataclass(frozen=True, kw_only=True)
class StateFile:
    """One file a model, data set, recipe and backend."""

    path: Path

    def save(self, state: RecoveryState, best: Draft, base: Draft | None = None) -> None:
        """Write atomically."""
        buffer = io.BytesIO()
        before = None if base is None else draft_state(base)
        torch.save({"state": vars(state), "draft": draft_state(best), "base": before}, buffer)
        atomic_write(self.path, buffer.getvalue())

    def load(self, plain_drop: float) -> Saved | None:
        """What an earlier run left; None where there is nothing, or it started from another engine."""
        if not self.path.is_file():
            return None
        try:
            content = torch.load(self.path, weights_only=True)
            saved = Saved(state=RecoveryState(**content["state"]), draft=content["draft"], base=content["base"])
        except Exception:  # whatever is wrong with a damaged file, it only costs the steps
            return None
        return saved if saved.state.start == plain_drop else None
