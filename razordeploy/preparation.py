"""Everything before an engine is made: calibrate once, draft, and improve each draft by the recipe's algorithms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import fx

from razordeploy.backends.base import Backend
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.backend_spec import OpRule
from razordeploy.data.batch import Batch
from razordeploy.each_backend import Timer
from razordeploy.errors import RecipeError
from razordeploy.job import Batches, PTQJob, begin
from razordeploy.quantization.algorithms.data import Work, hold
from razordeploy.quantization.algorithms.table import build_algorithms, improve
from razordeploy.quantization.cache import Pass, StatisticsCache, statistics_key
from razordeploy.quantization.calibrate import calibrate, checked_stream, of_size
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.guard import costly_attention
from razordeploy.quantization.mixed.assign import assign_bits, summary, with_bits
from razordeploy.quantization.placement import OpSettings, Settings
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.statistics import resolve

Job = TypeVar("Job", bound=PTQJob)


@dataclass(kw_only=True)
class Prepared:
    """A calibrated model."""

    captured: CapturedModel
    calibration: Pass
    drafts: dict[str, Draft]
    """Backend -> its draft, before the recipe's algorithms."""


def prepare(job: PTQJob, captured: CapturedModel, backends: list[Backend], timer: Timer) -> Prepared:
    """Place for every backend, calibrate once for all, and turn the statistics into scales."""
    with timer("place"):
        plans = {b.name: b.plan(captured, settings_for(b.spec, job.quantize)) for b in backends}
    with timer("calibrate"):
        begin(job, "calibrate", kept="nothing is kept")
        calibration = _calibrate(job, captured, list(plans.values()))
    drafts = {}
    for backend in backends:
        plan = plans[backend.name]
        draft = Draft(
            captured=captured,
            plan=plan,
            params=resolve(captured, plan, calibration.statistics),
            replan=_replanner(job, backend),
        )
        _keep_costly_attention_float(backend, draft, calibration)
        drafts[backend.name] = draft
    return Prepared(captured=captured, calibration=calibration, drafts=drafts)


def with_widths(job: Job, captured: CapturedModel, backends: list[Backend], notes: list[str]) -> Job:
    """The job with the bits of every layer chosen, where its recipe asks for mixed precision.

    Raises:
        RecipeError: a backend has no kernels for the widths, or the budget cannot be met.
    """
    wanted = job.quantize.mixed_precision
    if wanted is None:
        return job
    for backend in backends:
        missing = [b for b in wanted.bits if b not in backend.spec.bits]
        if missing:
            raise RecipeError(
                f"mixed precision: backend '{backend.name}' has no kernels for {missing} bits",
                hint="--backend academic simulates any width",
            )
    begin(job, "choose bit widths", kept="nothing is kept")
    plan = backends[0].plan(captured, settings_for(backends[0].spec, job.quantize))
    stream = checked_stream(opened(job.calibration), captured, "calibration data", notes=[], min_samples=0)
    chosen = assign_bits(captured, plan, wanted, first_samples(captured, stream, wanted.samples))
    notes.append(summary(wanted, chosen))
    return replace(job, quantize=with_bits(job.quantize, chosen, activations=wanted.activations))


def first_samples(captured: CapturedModel, stream: Iterable[Batch], count: int) -> list[tuple[torch.Tensor, ...]]:
    """Inputs of about ``count`` samples, in batches that the model takes."""
    found, left = [], count
    for batch in stream if captured.dynamic_batch else of_size(stream, captured.batch_size):
        taken = batch.head(left) if captured.dynamic_batch else batch
        found.append(taken.inputs)
        left -= len(taken)
        if left <= 0:
            break
    return found


def work_on(job: PTQJob, captured: CapturedModel, notes: list[str]) -> Work:
    """The calibration samples, held, for algorithms that read them often."""
    stream = checked_stream(opened(job.calibration), captured, "calibration data", notes=[], min_samples=0)
    return Work(
        inputs=hold(captured, (batch.inputs for batch in stream)),
        batch=32 if captured.dynamic_batch else captured.batch_size,
        tell=lambda text: begin(job, text),
        pause=lambda: begin_nothing(job),
        notes=notes,
    )


def improve_all(job: PTQJob, prepared: Prepared, work: Work) -> dict[str, Draft]:
    """Every backend's draft after the recipe's algorithms."""
    found = {}
    for name, draft in prepared.drafts.items():
        told = replace(work, tell=lambda text, name=name: work.tell(f"{name}: {text}"), notes=[])  # type: ignore[misc]
        found[name] = improve(draft, build_algorithms(job.quantize.algorithms), told)
        work.notes.extend(f"{name}: {note}" for note in told.notes)
    return found


def begin_nothing(job: PTQJob) -> None:
    """End the run here if it was asked to."""
    if job.progress.stop():
        begin(job, "")


def _replanner(job: PTQJob, backend: Backend) -> Callable[[CapturedModel, Mapping[str, str]], QuantPlan]:
    settings = settings_for(backend.spec, job.quantize)
    return lambda captured, kept_float: backend.plan(captured, _without(settings, kept_float))


def _without(settings: Settings, kept_float: Mapping[str, str]) -> Settings:
    def without(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        found = settings(node, kind, rule)
        return replace(found, skip=found.skip or kept_float.get(node.name))

    return without


def _calibrate(job: PTQJob, captured: CapturedModel, plans: list[QuantPlan]) -> Pass:
    cache = None
    if job.data_fingerprint is not None:
        cache = StatisticsCache(job.work_dir / "cache", statistics_key(captured, job.data_fingerprint))
    return calibrate(
        captured,
        plans,
        opened(job.calibration),
        cache=cache,
        advance=lambda samples: job.progress.advance(samples, job.calibration_samples),
        stop=job.progress.stop,
    )


def _keep_costly_attention_float(backend: Backend, draft: Draft, calibration: Pass) -> None:
    """Plan anew, from the same statistics, without the attention products that calibration shows to cost too much."""
    limits = {kind: rule.min_sqnr_db for kind, rule in backend.spec.ops.items() if rule.min_sqnr_db is not None}
    if not limits or not calibration.head:
        return
    reasons = costly_attention(draft.captured, draft.plan, draft.params, limits, calibration.head)
    if not reasons:
        return
    draft.kept_float = reasons
    draft.plan = draft.replan(draft.captured, reasons)
    draft.params = resolve(draft.captured, draft.plan, calibration.statistics)


def opened(stream: Batches) -> Iterator[Batch]:
    """The stream, opened when its first batch is asked for."""
    yield from stream()
