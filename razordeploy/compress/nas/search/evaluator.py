"""Candidates to workers, results to the journal; what fails is recorded, and the search goes on."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

from razordeploy.compress.nas.search.journal import Journal
from razordeploy.compress.nas.search.scored import Scored
from razordeploy.compress.nas.search.space import Subnet, subnet_key
from razordeploy.errors import ModelError, TaskTimeout, WorkerDied
from razordeploy.executors.base import TaskExecutor
from razordeploy.quantization.calibrate import Interrupted

ScoreTask = Callable[[Subnet], tuple[float, float]]
"""``subnet -> (score, seconds it took)``, run in a worker: a function of a module."""

_ATTEMPTS = 3
"""Workers that a candidate may outlive: another task or the machine may have ended the first."""
_AHEAD = 2
"""Candidates given to the executor for each that runs."""
_LOOK_S = 0.2


class Evaluator:
    """Scores batches of candidates.

    Args:
        executor: where the task runs.
        task: scores one candidate.
        journal: what it holds is not evaluated again.
        costs: of a candidate, for the record.
        stop: asked all the time; True ends the search.
        advance: told how many candidates were scored in all.
    """

    def __init__(
        self,
        executor: TaskExecutor,
        task: ScoreTask,
        journal: Journal,
        *,
        costs: Callable[[Subnet], Mapping[str, float]] = lambda subnet: {},
        stop: Callable[[], bool] = lambda: False,
        advance: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.executor = executor
        self.task = task
        self.journal = journal
        self.costs = costs
        self.stop = stop
        self.advance = advance
        self.done: list[Scored] = []
        """Everything that was scored, in the order it was asked for."""
        self.from_journal = 0
        """How many of them the journal knew."""

    def __call__(self, batch: list[Subnet]) -> list[Scored]:
        """The batch's results, in its order.

        Raises:
            Interrupted: ``stop`` asked for it; what was scored is in the journal.
            ModelError: not one candidate of all so far has a score.
        """
        found: dict[str, Scored] = {}
        queue: deque[tuple[Subnet, int]] = deque()
        for subnet in batch:
            known = self.journal.known.get(subnet_key(subnet))
            if known is None:
                queue.append((subnet, 1))
                continue
            self.from_journal += 1
            # The space's own values: a file holds lists for tuples.
            found[known.key] = Scored(
                subnet=subnet, score=known.score, costs=self.costs(subnet), error=known.error, seconds=known.seconds
            )
        self._report(found)
        running: dict[Future[Any], tuple[Subnet, int]] = {}
        while queue or running:
            self._heed_stop()
            # No more than keeps the workers busy: an executor in this process runs what it is given at once.
            while queue and len(running) < self.executor.max_parallel * _AHEAD:
                subnet, attempt = queue.popleft()
                running[self.executor.submit(self.task, subnet)] = (subnet, attempt)
                if next(reversed(running)).done():
                    break
            for future in wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done:
                subnet, attempt = running.pop(future)
                error = future.exception()
                if error is not None:
                    self._heed_stop()
                if isinstance(error, WorkerDied) and attempt < _ATTEMPTS:
                    queue.append((subnet, attempt + 1))
                    continue
                scored = self._scored(subnet, future, error)
                self.journal.add(scored, again=isinstance(error, WorkerDied | TaskTimeout))
                found[scored.key] = scored
                self._report(found)
        results = [found[subnet_key(subnet)] for subnet in batch]
        self.done += results
        self._refuse_only_failures()
        return results

    def _heed_stop(self) -> None:
        if self.stop():
            self.executor.kill()
            raise Interrupted(f"{len(self.journal.known)} candidates are in {self.journal.path}")

    def _report(self, found: Mapping[str, Scored]) -> None:
        self.advance(len(self.done) + len(found))

    def _scored(self, subnet: Subnet, future: Future[Any], error: Any) -> Scored:
        known: dict[str, Any] = {"subnet": subnet, "costs": self.costs(subnet)}
        if error is not None:
            line = next(iter(str(error).splitlines()), "no message")
            return Scored(score=None, error=f"{type(error).__name__}: {line}", **known)
        score, known["seconds"] = future.result()
        if not math.isfinite(score):
            return Scored(score=None, error=f"its score is {score}", **known)
        return Scored(score=score, **known)

    def _refuse_only_failures(self) -> None:
        if self.done and all(one.score is None for one in self.done):
            raise ModelError(
                f"not one of {len(self.done)} candidates could be scored; the first: {self.done[0].error}",
                hint=f"all of them are in {self.journal.path}",
            )
