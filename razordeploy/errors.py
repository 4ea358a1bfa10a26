"""Every error razordeploy raises on purpose, and the exit code the command line gives it.

RazorDeployError                  2   base; never raised itself
|-- CheckFailed                   1   a check did not hold; everything was still written
|-- TaskFailed                    1   a task that was handed to an executor
|   |-- WorkerDied                1   its process, job or node ended before the task did
|   `-- TaskTimeout               1   it ran longer than it may
|-- UsageError                    2   a flag or an argument
|   `-- RecipeError               2   a recipe: unknown key, wrong type, missing section
|-- ModelError                    2   a model that cannot be built, captured or quantized
|-- CheckpointError               2   missing, truncated, unsafe or not matching
|-- DataError                     2   calibration or evaluation data
|-- BackendError                  2   an installed engine refused the model
|-- MissingDependency             3   a package that is not installed; the text is the pip line
|-- StorageError                  5   disk full, no permission, locked work dir
`-- InternalError                70   a mistake of razordeploy itself, or of a library under it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RazorDeployError(Exception):
    """Base of every deliberate error: one line that says what is wrong, where, and what to do."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        text = " ".join(str(message).split())
        if hint:
            text = f"{text.rstrip('.')}; {' '.join(hint.split())}"
        super().__init__(text)
        self.hint = hint


class CheckFailed(RazorDeployError):
    """A measured check (accuracy gap, parity) is over its limit."""

    exit_code = 1


class TaskFailed(RazorDeployError):
    """A task that was handed to an executor did not end by itself."""

    exit_code = 1


class WorkerDied(TaskFailed):
    """The process, job or node that ran a task ended before the task did."""


class TaskTimeout(TaskFailed):
    """A task ran longer than its executor's ``timeout_s``, and was ended."""


class UsageError(RazorDeployError):
    """A command-line flag or a function argument is wrong."""


class RecipeError(UsageError):
    """A recipe has an unknown key, a wrong value or a missing section."""


class ModelError(RazorDeployError):
    """A model cannot be built, captured, quantized or exported."""


class CheckpointError(RazorDeployError):
    """A checkpoint is missing, truncated, unsafe to load or does not match the model."""


class DataError(RazorDeployError):
    """Calibration or evaluation data is missing, unreadable or not finite."""


class BackendError(RazorDeployError):
    """An installed engine refused a model that it was given."""


class MissingDependency(RazorDeployError):
    """A package that a backend or a recipe needs is not installed."""

    exit_code = 3


class StorageError(RazorDeployError):
    """The disk is full, a folder cannot be written, or a live run holds the work dir."""

    exit_code = 5


class InternalError(RazorDeployError):
    """An error that nobody raised on purpose; ``__cause__`` is the original."""

    exit_code = 70

    def __init__(self, error: Exception) -> None:
        text = " ".join(str(error).split()) or "no message"
        shown = text if len(text) <= 300 else f"{text[:297]}..."
        super().__init__(
            f"internal: {type(error).__name__}: {shown}",
            hint="run with RAZORDEPLOY_DEBUG=1 for the traceback and report it",
        )
        self.__cause__ = error


_LISTED = 32
"""Names that one line may hold."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Say what ``name`` may have been meant to be: ``did you mean 'x'?``, or what is known (of many, the likest)."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    shown = known if len(known) <= _LISTED else sorted(difflib.get_close_matches(name, known, n=_LISTED // 4, cutoff=0))
    others = f" and {len(known) - len(shown)} others" if len(shown) < len(known) else ""
    return f"known: {', '.join(shown)}{others}"
