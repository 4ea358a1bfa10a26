"""Which operations lose the accuracy: every one quantized alone, its weights and inputs apart, and all up to it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from razordeploy import __version__
from razordeploy.backends.base import Backend
from razordeploy.backends.harness import torch_runner
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.data.batch import Batch
from razordeploy.each_backend import Timer, open_backends
from razordeploy.errors import DataError, RazorDeployError
from razordeploy.job import PTQJob, begin
from razordeploy.preparation import begin_nothing, improve_all, opened, prepare, work_on
from razordeploy.quantization.algorithms.table import build_algorithms
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.calibrate import Interrupted, checked_stream
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.qconfig import check_patterns
from razordeploy.quantization.sensitivity import Effect, Sensitivity, analyze
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text
from razordeploy.train.evaluate import evaluate
from razordeploy.validation import any_batch


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """One backend's operations in execution order."""

    backend: str
    samples: int
    metric: str | None
    """Name of the metric that drops are of; None: there are no labels."""
    float_metric: float | None
    whole: Effect
    """All operations quantized."""
    layers: tuple[Sensitivity, ...]


def run_analysis(job: PTQJob, *, samples: int) -> tuple[dict[str, Analysis], dict[str, RazorDeployError]]:
    """Analyze the recipe's model for every backend.

    Args:
        job: model, data and what is asked of quantization; engines are not made.
        samples: of the evaluation data; without any, of the calibration data, whose outputs alone are compared.

    Returns:
        The analyses, and the error of every backend that is not there.

    Raises:
        RazorDeployError: the model or the data cannot be used.
        Interrupted: the run was asked to end; finished operations are kept.
    """
    build_algorithms(job.quantize.algorithms)
    backends, errors = open_backends(job.backends)
    begin(job, "capture", kept="nothing is kept")
    captured = capture(job.model, job.example_inputs, dynamic_batch=job.deploy.dynamic_batch)
    check_patterns(job.quantize, captured)
    prepared = prepare(job, captured, backends, Timer())
    drafts = prepared.drafts
    if job.quantize.algorithms:
        drafts = improve_all(job, prepared, work_on(job, captured, []))
    data = _batches(job, captured, samples)
    return {b.name: _analyzed(job, b, drafts[b.name], captured, data) for b in backends}, errors


def _batches(job: PTQJob, captured: CapturedModel, samples: int) -> list[Batch]:
    begin(job, "read the samples")
    stream = job.calibration if job.evaluation is None else job.evaluation
    what = "calibration data" if job.evaluation is None else "evaluation data"
    found: list[Batch] = []
    for batch in checked_stream(opened(stream), captured, what, notes=[], min_samples=0):
        found.append(batch.head(min(len(batch), samples - sum(map(len, found)))))
        if sum(map(len, found)) >= samples:
            break
    if not found:
        raise DataError(f"the {what} is empty: expected at least one batch", hint="check the recipe's data section")
    return found


def _analyzed(job: PTQJob, backend: Backend, draft: Draft, captured: CapturedModel, data: Sequence[Batch]) -> Analysis:
    begin(job, f"{backend.name}: analyze")
    measure = _Measure(job, draft, captured, data)
    kept = _Kept.of(job, backend, captured, measure.samples)
    known = kept.load()

    def tell(done: int, total: int) -> None:
        kept.save(known)
        job.progress.advance(done, total)

    try:
        layers = analyze(draft, measure, known=known, tell=tell)
        whole = measure(_simulated(draft))
    except Interrupted:
        raise Interrupted(f"{len(known)} analyzed operations are kept") from None
    return Analysis(
        backend=backend.name,
        samples=measure.samples,
        metric=measure.metric,
        float_metric=measure.float_metric,
        whole=whole,
        layers=tuple(layers),
    )


def _simulated(draft: Draft) -> fx.GraphModule:
    from razordeploy.quantization.simulate import simulate

    return simulate(draft.captured, draft.plan, draft.params)


class _Measure:
    """Compares simulations with the float model on the same batches."""

    def __init__(self, job: PTQJob, draft: Draft, captured: CapturedModel, data: Sequence[Batch]) -> None:
        self.job, self.captured, self.data = job, captured, data
        self.samples = sum(map(len, data))
        self.labelled = job.evaluation is not None
        self.metric: str | None = None
        self.float_metric: float | None = None
        self.expected, scores = self._run(draft.float_model().graph_module)
        if scores:
            self.metric = next(k for k in scores if k != "samples")
            self.float_metric = scores[self.metric]

    def _run(self, module: fx.GraphModule) -> tuple[list[np.ndarray], dict[str, float]]:
        runner, outputs = any_batch(self.captured, torch_runner(module)), list[np.ndarray]()

        def run(*inputs: np.ndarray) -> Any:
            begin_nothing(self.job)
            found = runner(*inputs)
            outputs.extend(found if isinstance(found, tuple) else (found,))
            return found

        if self.labelled:
            return outputs, evaluate(run, iter(self.data), self.job.metric)
        for batch in self.data:
            run(*(x.numpy() for x in batch.inputs))
        return outputs, {}

    def __call__(self, module: fx.GraphModule) -> Effect:
        outputs, scores = self._run(module)
        pairs = [(torch.as_tensor(a).double(), torch.as_tensor(b)) for a, b in zip(self.expected, outputs, strict=True)]
        noise = sum(float((a - b).square().sum()) for a, b in pairs)
        signal = sum(float(a.square().sum()) for a, _ in pairs)
        db = None if noise == 0 or signal == 0 else float(10 * np.log10(signal / noise))
        drop = None if self.metric is None or self.float_metric is None else self.float_metric - scores[self.metric]
        return Effect(sqnr_db=db, drop=drop)


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """Finished operations in a file, for a run that goes on."""

    path: Path | None

    @classmethod
    def of(cls, job: PTQJob, backend: Backend, captured: CapturedModel, samples: int) -> _Kept:
        if job.data_fingerprint is None:
            return cls(path=None)
        parts = (model_digest(captured), job.data_fingerprint, asdict(job.quantize), asdict(backend.spec), samples)
        key = hashlib.sha256(f"{__version__} {torch.__version__} {parts}".encode()).hexdigest()[:24]
        return cls(path=job.work_dir / "cache" / f"analysis-{backend.name}-{key}.json")

    def load(self) -> dict[str, Sensitivity]:
        if self.path is None or not self.path.is_file():
            return {}
        try:
            return {r["node"]: _read(r) for r in json.loads(self.path.read_text(encoding="utf-8"))}
        except (OSError, ValueError, KeyError, TypeError):  # a damaged file only costs the measurements
            return {}

    def save(self, known: dict[str, Sensitivity]) -> None:
        if self.path is not None:
            atomic_write(self.path, json_text([s.record for s in known.values()]))


def _read(record: dict[str, Any]) -> Sensitivity:
    effects = {k: Effect(**v) for k, v in record.items() if isinstance(v, dict)}
    return Sensitivity(node=record["node"], module=record["module"], op=record["op"], **effects)
