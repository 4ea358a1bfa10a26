"""Close the accuracy gap of an engine: algorithms from the cheapest to the dearest, until the engine's gap holds.

Every step starts from the best draft so far and is kept only where the engine it makes loses less on the evaluation
data; so the result is never worse than plain quantization. Algorithms learn from calibration data alone. Without
labels the engine's outputs are held against the float model's, on calibration samples that nothing is learned from.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import fx

from razordeploy import __version__
from razordeploy.backends.base import Backend
from razordeploy.backends.harness import torch_runner
from razordeploy.deployment import Deployment
from razordeploy.each_backend import Made
from razordeploy.errors import RazorDeployError
from razordeploy.job import begin
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.table import EQUALIZING, build_algorithms, improve
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.quantization.compare import sqnr_db
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.sensitivity import Effect, Sensitivity, analyze, ranked
from razordeploy.recovery_goal import CANDIDATE, Goal, goal_of_outputs, trial
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
_MOST_FLOAT = 0.75
"""Share of the quantized operations that may go back to float: beyond it there is no int8 engine left to speak of."""
_TRAINING = "training"
_RANKED_ON = 64
"""Samples that operations are ranked on."""

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
        for name, attempt in self._attempts():
            if self._holds():
                break
            if name not in {step["name"] for step in self.state.steps}:
                self._try(name, attempt)
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

    def _attempts(self) -> Iterator[tuple[str, Callable[[], Draft | str]]]:
        for name, algorithms in STEPS:
            yield name, lambda algorithms=algorithms: self._with(algorithms)  # type: ignore[misc]
        for count in self._counts():
            yield f"{count} in float", lambda count=count: self._reverted(count)  # type: ignore[misc]
        yield _TRAINING, self._trained

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
        kept = drop < before
        asked = list(self._asked)
        step = {
            "name": name,
            "drop": drop,
            "gained": before - drop,
            "kept": kept,
            "int8": sum(op.int8 for op in found.plan.ops),
            "seconds": time.perf_counter() - start,
            "note": "; ".join(self.work.notes) or ("" if kept else "no better"),
        }
        if kept:
            self.best, self.state.drop, self.state.algorithms = found, drop, asked
        self._note(step)

    def _note(self, step: dict[str, Any]) -> None:
        self.state.steps.append(step)
        self.work.notes.clear()
        if self.state_file is not None and step["name"] != _TRAINING:  # a training keeps its own result
            self.state_file.save(self.state, self.best)

    def _with(self, names: Sequence[str]) -> Draft | str:
        new = [{"type": name} for name in names]
        if not any(name in EQUALIZING for name in names):
            self._asked = [*self.state.algorithms, *new]
            return improve(self.best, build_algorithms(new), self.work)
        equalized = improve(self.plain, build_algorithms(new), self.work)
        if not equalized.changed(self.plain):
            return "nothing to equalize"
        self._asked = [*new, *self.state.algorithms]
        return improve(equalized, build_algorithms(self.state.algorithms), self.work)

    def _counts(self) -> Iterator[int]:
        most = max(1, int(_MOST_FLOAT * sum(op.int8 for op in self.plain.plan.ops)))
        count = 1
        while count < most:
            yield count
            count *= 2
        yield most

    def _reverted(self, count: int) -> Draft | str:
        self._asked = self.state.algorithms
        if self.state.ranking is None:
            self._begin("rank operations")
            self.state.ranking = [(s.node, s.module, s.isolated.sqnr_db) for s in ranked(self._sensitivities())]
        reasons = {
            node: f"float: keeps {db:.0f} dB when it alone is quantized"
            for node, _, db in self.state.ranking[:count]
            if db is not None
        }
        if not reasons:
            return "no operation does harm alone"
        draft = self.best.copied()
        draft.keep_float(reasons, self.work.batches())
        self.work.notes.append("float: " + ", ".join(m or n for n, m, _ in self.state.ranking[:count]))
        return draft

    def _sensitivities(self) -> list[Sensitivity]:
        draft, inputs = self.best, next(iter(replace(self.work, batch=_RANKED_ON).batches(_RANKED_ON)))
        if not draft.captured.dynamic_batch:
            inputs = tuple(x[: draft.captured.batch_size] for x in inputs)
        arrays = [x.numpy() for x in inputs]
        expected = _first(torch_runner(draft.float_model().graph_module)(*arrays))

        def measure(module: fx.GraphModule) -> Effect:
            self.work.pause()
            return Effect(sqnr_db=sqnr_db(expected, _first(torch_runner(module)(*arrays))))

        return analyze(draft, measure, parts=())

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


def _first(outputs: Any) -> torch.Tensor:
    return torch.as_tensor(outputs[0] if isinstance(outputs, tuple) else outputs)


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
        gap = entry.get("gap", {})
        drop = gap.get("float_to_engine", gap.get("float_to_simulated"))
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


def _state_file(deployment: Deployment, backend: Backend) -> StateFile | None:
    job = deployment.job
    if job.data_fingerprint is None:
        return None
    parts = (model_digest(deployment.captured), job.data_fingerprint, asdict(job.quantize), asdict(backend.spec))
    key = hashlib.sha256(f"{__version__} {torch.__version__} {parts}".encode()).hexdigest()[:24]
    return StateFile(path=job.work_dir / "cache" / f"recovery-{backend.name}-{key}.pt")
