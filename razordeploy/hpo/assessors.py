"""Assessors: which running trials are not worth their rest.

Values are those of one reward, in the order they were reported; steps are counted from 1.
"""

from __future__ import annotations

import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from razordeploy.hpo.curves import predicted


class Assessor(ABC):
    """Sees every report of every trial."""

    start_step: int
    """No trial is stopped before it has reported so often."""

    def __init__(self, *, maximise: bool) -> None:
        self._sign = 1.0 if maximise else -1.0

    @abstractmethod
    def ended(self, values: Sequence[float]) -> None:
        """Take note of a trial that ran to its end; stopped and failed ones do not count."""

    @abstractmethod
    def stop(self, trial: int, values: Sequence[float]) -> str | None:
        """Say why ``trial``, which has reported ``values`` so far, is to be stopped; None: it goes on."""


class MedianStop(Assessor):
    """Vizier's median stopping rule (Golovin et al. 2017, section 3.2.2).

    A trial is stopped at step s if its best value so far is worse than the median of the running means of the completed
    trials, each over its first s values. (Optuna's MedianPruner compares with the values at step s itself.)
    Before some steps the rule tells slow starters from bad ones no better than chance, hence ``start_step``.
    """

    def __init__(self, *, maximise: bool, start_step: int = 5, min_trials: int = 3) -> None:
        super().__init__(maximise=maximise)
        self.start_step = start_step
        self._min_trials = min_trials
        self._sums: list[list[float]] = []
        """Per completed trial: the running mean at every step."""

    def ended(self, values: Sequence[float]) -> None:
        """Keep the running means."""
        means, total = [], 0.0
        for count, value in enumerate(values, 1):
            total += self._sign * value
            means.append(total / count)
        if means:
            self._sums.append(means)

    def stop(self, trial: int, values: Sequence[float]) -> str | None:
        """Compare the best value with the median."""
        step = len(values)
        if step < self.start_step or len(self._sums) < self._min_trials:
            return None
        median = statistics.median(means[min(step, len(means)) - 1] for means in self._sums)
        best = max(self._sign * value for value in values)
        if best >= median:
            return None
        return (
            f"best of {step} steps {self._sign * best:.6g}, median of the {len(self._sums)} completed trials "
            f"{self._sign * median:.6g}"
        )


class CurveFitting(Assessor):
    """Stops a trial whose learning curve, carried on to the last step, ends worse than the best trial so far.

    The curve is a weighted mean of parametric families (Domhan et al. 2015) that are fitted to the values so far; see
    ``curves.predicted``. A trial is stopped if the predicted end is worse than the best end by more than
    ``(1 - threshold)`` of that end's size.
    """

    def __init__(
        self, *, maximise: bool, epoch_num: int, start_step: int = 6, threshold: float = 0.95, gap: int = 1
    ) -> None:
        super().__init__(maximise=maximise)
        self.start_step = start_step
        self._last_step = epoch_num
        self._threshold = threshold
        self._gap = gap
        self._best: float | None = None

    def ended(self, values: Sequence[float]) -> None:
        """Keep the best end."""
        if values:
            end = self._sign * values[-1]
            self._best = end if self._best is None else max(self._best, end)

    def stop(self, trial: int, values: Sequence[float]) -> str | None:
        """Predict the end at every ``gap``-th step."""
        step = len(values)
        if self._best is None or step < self.start_step or step >= self._last_step:
            return None
        if (step - self.start_step) % self._gap:
            return None
        end = predicted([self._sign * value for value in values], self._last_step)
        if end is None or end >= self._best - (1 - self._threshold) * abs(self._best):
            return None
        return f"predicted end {self._sign * end:.6g} after {step} steps, best so far {self._sign * self._best:.6g}"


ASSESSORS: dict[str, Any] = {"MedianStop": MedianStop, "CurveFitting": CurveFitting}


def build_assessor(kind: str | None, options: Mapping[str, Any], *, maximise: bool) -> Assessor | None:
    """The assessor that the task names; None: every trial runs to its end."""
    return None if kind is None else ASSESSORS[kind](maximise=maximise, **options)
