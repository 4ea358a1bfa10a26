"""Close the accuracy gap of an engine: algorithms from the cheapest to the dearest, until the engine's gap holds.

Every step starts from the best draft so far and is kept only where the engine it makes loses less on the evaluation
data; so the result is never worse than plain quantization. Algorithms learn from calibration data alone. Without
labels the engine's outputs are held against the float model's, on calibration samples that nothing is learned from.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from razordeploy import __version__
from razordeploy.backends.base import Backend
from razordeploy.deployment import Deployment
from razordeploy.each_backend import Made
from razordeploy.errors import RazorDeployError
from razordeploy.job import begin
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.table import EQUALIZING, build_algorithms, improve
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.quantization.draft import Draft
from razordeploy.recovery_float import fewest, in_float, more, most_in_float, ranking
from razordeploy.recovery_goal import CANDIDATE, KINDS, Goal, goal_of_outputs, trial
from razordeploy.recovery_state import RecoveryState, StateFile
from razordeploy.train.evaluate import evaluate
from razordeploy.validation import any_batch, stoppable

STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("range search", ("RangeSearch",)),
    ("bias correction", ("BiasCorrection",)),
    ("equalization", ("CrossLayerEqualization", "SmoothQuant")),
    ("learned rounding", ("AdaRound",)),
    ("block reconstruction", ("QDrop",)),
    ("block fine-tuning", ("LSQFinetune",)),
)
"""Name of the step -> algorithms that it adds; those that place the grids anew go before what is there already."""
_QUICK: dict[str, dict[str, Any]] = {"RangeSearch": {"values": 2**19}}
"""Options without labels, where a goal of a cosine is no reason to take long."""
_LEARNING = frozenset({"AdaRound", "QDrop", "LSQFinetune"})
"""Algorithms that take long; they bring back what the weights lose."""
_LEARN_SECONDS = 120.0
"""Time, without labels, for all of them: the parts that they have not come to by then stay as they were."""
_LEARN_VALUES = 2**20
"""Input values of a batch that they learn on, about; but at least four samples."""
_FLOAT = "operations in float"
_TRAINING = "training"
_FEW = 32
"""Samples that scales of a simulation are taken from, where operations in float make new ones necessary."""

Finetune = Callable[[Backend, Draft, Path], Draft]
"""Trains a draft for a short time: ``(backend, draft, folder for checkpoints) -> draft``."""


@dataclass(kw_only=True)
class Recovery:
    """One backend's recovery."""

    deployment: Deployment
    backend: Backend
    plain: Draft
    """What plain quantization makes."""
    work: Work
    goal: Goal
    finetune: Finetune | None = None
    """None: there is no training data, or no way to train."""
    state_file: StateFile | None = None
    """Where finished steps are kept; None: nowhere."""
    state: RecoveryState = field(init=False)
    best: Draft = field(init=False)
    learn_until: float | None = None
    """When the time for steps that learn is up; None: none was tried yet."""
    base: Draft | None = None
    """The best draft before operations go back to float."""

    def run(self, plain_drop: float) -> tuple[Draft, dict[str, Any]]:
        """Try one step after the other.

        Args:
            plain_drop: what the plain engine loses, as the goal measures it.

        Returns:
            The best draft, and what the report says of it.

        Raises:
            Interrupted: the run was asked to end; finished steps are kept in the state file.
        """
        self.state = RecoveryState(drop=plain_drop, start=plain_drop)
        self.best = self.plain
        self.work = replace(self.work, tell=self._begin, pause=self._pause)
        saved = self.state_file.load(plain_drop) if self.state_file is not None else None
        if saved is not None:
            self.state, self.best = saved.state, saved.restored(self.plain)
            self.base = saved.restored_base(self.plain)
        for name, algorithms in STEPS:
            if not self._holds():
                self._once(name, lambda algorithms=algorithms: self._with(algorithms))  # type: ignore[misc]
        if self.base is not None or not self._holds():  # fewer in float may do, where a run ended in between
            self._leave_in_float()
        if not self._holds():
            self._once(_TRAINING, self._trained)
        record = {
            "of": self.goal.of,
            "target": self.goal.limit,
            "met": self._holds(),
            "start": self.state.start,
            "end": self.state.drop,
            "algorithms": [str(a["type"]) for a in self.state.algorithms],
            "float": sorted(set(self.best.kept_float) - set(self.plain.kept_float)),
            "steps": self.state.steps,
        }
        return self.best, record

    def _holds(self) -> bool:
        return self.state.drop <= self.goal.limit

    def _done(self, name: str) -> dict[str, Any] | None:
        return next((step for step in self.state.steps if step["name"] == name), None)

    def _once(self, name: str, attempt: Callable[[], Draft | str]) -> dict[str, Any]:
        """What came of a step, which is tried unless an earlier run has done so."""
        if self._done(name) is None:
            self._try(name, attempt)
        return self._done(name) or {}

    def _try(self, name: str, attempt: Callable[[], Draft | str]) -> None:
        start, before = time.perf_counter(), self.state.drop
        self._begin(name)
        try:
            found = attempt()
            drop = before if isinstance(found, str) else self.goal.loss(found)
        except Interrupted as end:
            raise Interrupted(self._kept()) from end
        except RazorDeployError as error:  # a step that fails costs only itself
            found = str(error)
        if isinstance(found, str):
            self._note({"name": name, "kept": False, "note": found, "seconds": time.perf_counter() - start})
            return
        held = self._holds()  # then it is about fewer operations in float
        kept = drop <= self.goal.limit if held else drop < before
        asked = list(self._asked)
        step = {
            "name": name,
            "drop": drop,
            "gained": before - drop,
            "kept": kept,
            "int8": sum(op.int8 for op in found.plan.ops),
            "seconds": time.perf_counter() - start,
            "note": "; ".join(self.work.notes) or ("" if kept else "too few" if held else "no better"),
        }
        if kept:
            self.best, self.state.drop, self.state.algorithms = found, drop, asked
        self._note(step)

    def _note(self, step: dict[str, Any]) -> None:
        self.state.steps.append(step)
        self.work.notes.clear()
        if self.state_file is not None and step["name"] != _TRAINING:  # a training keeps its own result
            self.state_file.save(self.state, self.best, self.base)

    def _with(self, names: Sequence[str]) -> Draft | str:
        options = _QUICK if self.goal.of == "outputs" else {}
        new: list[dict[str, Any]] = [{"type": name, **options.get(name, {})} for name in names]
        if _LEARNING.isdisjoint(names):
            work = self.work
        else:
            in_vain = self._activations_lose_too_much()
            if in_vain:
                return in_vain
            work = self._work_to_learn()
            if work.over:
                return f"the {_LEARN_SECONDS:.0f} s for steps that learn are used up"
        if not any(name in EQUALIZING for name in names):
            self._asked = [*self.state.algorithms, *new]
            return improve(self.best, build_algorithms(new), work)
        equalized = improve(self.plain, build_algorithms(new), work)
        if not equalized.changed(self.plain):
            return "nothing to equalize"
        worse = self._equalized_in_vain(equalized)
        if worse:
            return worse
        self._asked = [*new, *self.state.algorithms]
        return improve(equalized, build_algorithms(self.state.algorithms), work)

    def _equalized_in_vain(self, equalized: Draft) -> str:
        """Why the algorithms so far are not run again on what was equalized; empty where they are."""
        if self.goal.simulated is None:
            return ""
        before, after = (self.goal.simulated(draft, KINDS) for draft in (self.plain, equalized))
        if after < before:
            return ""
        return f"it takes the plain cosine from {1 - before / 100:.4f} to {1 - after / 100:.4f} in simulation"

    def _activations_lose_too_much(self) -> str:
        """Why weights that are rounded otherwise cannot reach the goal; empty where they may."""
        if self.goal.simulated is None:
            return ""
        if self.state.apart is None:
            self._begin("round weights and activations apart")
            self.state.apart = {kind: self.goal.simulated(self.best, (kind,)) for kind in KINDS}
        if self.state.apart["activation"] <= self.goal.limit:
            return ""
        weights, activations, least = (
            f"{1 - loss / 100:.4f}" for loss in (*self.state.apart.values(), self.goal.limit)
        )
        return (
            f"activations alone keep a cosine of {activations}, weights alone {weights}: no rounding of weights gives "
            f"{least}"
        )

    def _work_to_learn(self) -> Work:
        work = self.work
        if self.goal.of == "outputs":
            self.learn_until = self.learn_until or time.monotonic() + _LEARN_SECONDS
            work = replace(work, until=self.learn_until)
        if self.plain.captured.dynamic_batch:
            of_one = sum(x[0].numel() for x in work.inputs)
            work = replace(work, batch=min(work.batch, max(4, _LEARN_VALUES // of_one)))
        return work

    # Operations in float ---------------------------------------------------------------------------------------

    def _leave_in_float(self) -> None:
        self.base = self.base or self.best
        if self.state.ranking is None:
            self._begin("rank operations")
            self.state.ranking = ranking(self.base, self.work)
        most = min(most_in_float(self.plain), len(self.state.ranking))
        if not most:
            self._note({"name": _FLOAT, "kept": False, "note": "no operation does harm alone", "seconds": 0.0})
        elif self.goal.simulated is None:
            fewest(most, self._engine_holds)
        elif not self._holds():
            self._by_simulation(most)

    def _engine_holds(self, count: int) -> bool:
        step = self._once(f"{count} in float", lambda: self._reverted(count))
        return bool(step.get("drop", math.inf) <= self.goal.limit)

    def _by_simulation(self, most: int) -> None:
        """Simulations, which take no build, say how many have to be in float; then engines are made."""
        start, losses = time.perf_counter(), dict[int, float]()

        def simulation_holds(count: int) -> bool:
            assert self.goal.simulated is not None
            self._begin(f"simulate {count} of up to {most} operations in float")
            losses[count] = self.goal.simulated(self._reverted(count, _FEW), KINDS)
            return losses[count] <= self.goal.limit

        count = None if self._done(_FLOAT) else fewest(most, simulation_holds)
        self.work.notes.clear()
        seconds = time.perf_counter() - start
        if losses and count is None:
            found = f"even {most} operations in float keep a cosine of {1 - losses[most] / 100:.4f} in simulation"
            self._note({"name": _FLOAT, "kept": False, "note": found, "seconds": seconds})
        for tried in more(count, most) if count is not None else ():
            if self._engine_holds(tried):
                break

    def _reverted(self, count: int, samples: int | None = None) -> Draft:
        assert self.base is not None and self.state.ranking is not None
        self._asked = self.state.algorithms
        chosen = self.state.ranking[:count]
        self.work.notes.append("float: " + ", ".join(module or node for node, module, _ in chosen))
        return in_float(self.base, chosen, self.work.batches(samples))

    def _trained(self) -> Draft | str:
        self._asked = [*self.state.algorithms, {"type": "QAT"}]
        if self.finetune is None:
            return "there is no training data: through the command line, a recipe has some"
        return self.finetune(self.backend, self.best, self.deployment.job.work_dir / "cache" / "recovery")

    def _pause(self) -> None:
        if self.deployment.job.progress.stop():
            self._begin("")

    def _begin(self, name: str) -> None:
        begin(self.deployment.job, f"{self.backend.name}: recover: {name}", kept=self._kept())

    def _kept(self) -> str:
        return "nothing is kept" if self.state_file is None else f"{len(self.state.steps)} finished steps are kept"


def engine_drop(deployment: Deployment, backend: Backend, draft: Draft) -> float:
    """What the engine of ``draft`` loses of the first metric, in points; the engine itself is not kept."""
    key = next(k for k in deployment.float_metrics if k != "samples")
    with trial(deployment, backend, draft) as run:
        scores = evaluate(any_batch(draft.captured, run), stoppable(deployment.job), deployment.job.metric)
    return float(deployment.float_metrics[key] - scores[key])


def recovered(
    deployment: Deployment,
    backend: Backend,
    plain: Draft,
    made: Made,
    work: Work,
    finetune: Finetune | None = None,
) -> Made:
    """The engine after recovery; ``made``, which the plain draft gave, where nothing was better or had to be."""
    artifact, entry = made
    start = time.perf_counter()
    for left in deployment.job.work_dir.glob(f"{CANDIDATE}*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    if deployment.job.evaluation is None:
        goal, work = goal_of_outputs(deployment, backend, work)
        drop: float | None = goal.loss(plain)
    else:
        limit = deployment.job.deploy.max_drop
        goal = Goal(of="metric", limit=limit, loss=lambda draft: engine_drop(deployment, backend, draft))
        drop = _drop_of(entry)
    if drop is None:
        return made
    recovery = Recovery(
        deployment=deployment,
        backend=backend,
        plain=plain,
        work=work,
        goal=goal,
        finetune=finetune,
        state_file=_state_file(deployment, backend),
    )
    best, record = recovery.run(float(drop))
    seconds = time.perf_counter() - start
    if best is not plain:
        artifact, entry = deployment.make(backend, best)
    entry["recovery"] = record
    entry["seconds"] = {**entry["seconds"], "recover": seconds}
    if goal.of == "outputs" and not record["met"]:
        least, found = deployment.job.deploy.min_cosine, 1 - record["end"] / 100
        entry["failures"].append(f"the outputs keep a cosine of {found:.4f} to the float model's, under {least}")
        entry["passed"] = False
    return artifact, entry


def _drop_of(entry: Mapping[str, Any]) -> float | None:
    gap = entry.get("gap", {})
    found: float | None = gap.get("float_to_engine", gap.get("float_to_simulated"))
    return found


def _state_file(deployment: Deployment, backend: Backend) -> StateFile | None:
    job = deployment.job
    if job.data_fingerprint is None:
        return None
    parts = (model_digest(deployment.captured), job.data_fingerprint, asdict(job.quantize), asdict(backend.spec))
    key = hashlib.sha256(f"{__version__} {torch.__version__} {parts}".encode()).hexdigest()[:24]
    return StateFile(path=job.work_dir / "cache" / f"recovery-{backend.name}-{key}.pt")
