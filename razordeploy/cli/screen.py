"""Progress on the terminal."""

from __future__ import annotations

import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from razordeploy.cli.signals import Stop
from razordeploy.job import Progress


class ScreenProgress:
    """A bar per step on a terminal; one plain line per step elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.live = self.console.is_terminal
        self.bars = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=self.console,
            disable=not self.live,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> ScreenProgress:
        self.bars.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.bars.stop()

    def progress(self, stop: Stop) -> Progress:
        """What the pipeline reports to."""
        return Progress(stage=self._stage, advance=self._advance, stop=stop)

    def _stage(self, text: str) -> None:
        if not self.live:
            print(f"- {text}", file=sys.stderr, flush=True)
            return
        if self.task is not None:
            done: Any = self.bars.tasks[-1]
            self.bars.update(self.task, total=done.completed or 1, completed=done.completed or 1)
        self.task = self.bars.add_task(text, total=None)

    def _advance(self, done: int, total: int | None) -> None:
        if self.live and self.task is not None:
            self.bars.update(self.task, completed=done, total=total)
