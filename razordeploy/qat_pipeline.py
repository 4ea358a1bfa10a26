"""Quantization-aware training from a float module to measured engines, one training and one artifact a backend."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from razordeploy import __version__
from razordeploy.backends.base import Backend
from razordeploy.capture.export import capture
from razordeploy.deployment import Deployment, marked_once
from razordeploy.each_backend import Made, Timer, make_each, open_backends
from razordeploy.job import PTQJob, PTQResult, begin
from razordeploy.pipeline import check_model, check_tensor_names
from razordeploy.preparation import improve_all, prepare, with_widths, work_on
from razordeploy.quantization.algorithms.table import build_algorithms
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.dead import dead_values
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.qconfig import check_patterns
from razordeploy.quantization.stored import plan_record
from razordeploy.repair import make_right
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text
from razordeploy.validation import evaluate_float

if TYPE_CHECKING:
    from razordeploy.quantization.qat.train import Training


@dataclass(kw_only=True)
class QATJob(PTQJob):
    """A float model, its data, and how it is trained on its grids."""

    training: Training


def run_qat(job: QATJob) -> PTQResult:
    """Calibrate once; then, for every backend, train on its plan, export what was trained and validate it.

    A training that was interrupted goes on from its last full epoch, and one that is finished is not run again, as
    long as the model, the plan, the data and the settings are the same.

    Of several processes all train; the first one alone makes engines, and the others' results are empty.

    Raises:
        MissingDependency: none of the backends asked for is installed.
        RazorDeployError: the model or the data cannot be used or trained on, or no backend made an engine.
        Interrupted: ``job.progress.stop`` asked for it.
    """
    from razordeploy.quantization.qat.graph import check_trainable
    from razordeploy.train.processes import join

    check_model(job.model)
    check_trainable(job.model)
    job = replace(job, origin={**job.origin, "qat": asdict(job.training.config)})
    build_algorithms(job.quantize.algorithms)
    backends, errors = open_backends(job.backends)
    timer = Timer()
    with timer("capture"):
        begin(job, "capture", kept="nothing is kept")
        captured = capture(job.model, job.example_inputs, dynamic_batch=job.deploy.dynamic_batch, keep_norms=True)
    check_tensor_names(job.deploy, captured)
    check_patterns(job.quantize, captured)
    widths: list[str] = []
    job = with_widths(job, captured, backends, widths)
    prepared = prepare(job, captured, backends, timer)
    statistics, drafts = prepared.calibration.statistics, prepared.drafts
    notes = [*captured.warnings, *prepared.calibration.notes, *widths]
    for draft in list(drafts.values())[:1]:
        notes += dead_values(captured, draft.plan, statistics)
    if job.quantize.algorithms:
        with timer("improve"):
            drafts = improve_all(job, prepared, work_on(job, captured, notes))
    if join(job.training.launcher) > 0:
        for name, draft in drafts.items():
            trained_draft(job, name, draft)
        return PTQResult(artifacts={}, backends={}, warnings=[], errors={})
    with timer("export"):
        begin(job, "export")
        marked = marked_once(job, captured, backends, [d.plan for d in prepared.drafts.values()])
    begin(job, "evaluate the float model")
    float_metrics = evaluate_float(job, captured, prepared.calibration.seen, notes)
    deployment = Deployment(job=job, captured=captured, float_metrics=float_metrics, marked=marked, stage="qat")

    def make(backend: Backend) -> Made:
        own = Timer()
        with own("train"):
            trained, said = trained_draft(job, backend.name, drafts[backend.name])
        notes.extend(f"{backend.name}: {note}" for note in said)
        _, (artifact, entry) = make_right(deployment, backend, trained, notes)
        entry["seconds"] = {**timer.seconds, **own.seconds, **entry["seconds"]}
        entry["calibration"] = {"samples": statistics.samples, "seconds": timer.seconds["calibrate"]}
        return artifact, entry

    result = PTQResult(artifacts={}, backends={}, warnings=notes, errors=errors)
    make_each(backends, result, make)
    return result


def trained_draft(job: QATJob, name: str, draft: Draft) -> tuple[Draft, list[str]]:
    """Train ``draft`` in ``work_dir/qat/<name>``; returns it with its new weights and scales, and lines for the user.

    Raises:
        ModelError: nothing in it can be trained, or the loss is not finite.
        Interrupted: ``job.progress.stop`` asked for it; the last full epoch is kept.
    """
    from razordeploy.quantization.qat.choose import chosen_fake_quants
    from razordeploy.quantization.qat.train import CHECKPOINT, build_network, load_network, train_network
    from razordeploy.train.processes import from_first

    training = replace(job.training, advance=job.progress.advance, stop=job.progress.stop)
    make = chosen_fake_quants(draft.captured, draft.plan, job.quantize)
    network, notes = build_network(draft.captured, draft.plan, draft.params, make, training.config)
    folder = job.work_dir / "qat" / name
    training.resume = from_first(lambda: _same_run(folder, _key(job, draft)))
    if training.resume and from_first((folder / CHECKPOINT).is_file):
        load_network(network, folder / CHECKPOINT)
    else:
        begin(job, f"{name}: train", kept="the trained epochs are kept")
        train_network(network, draft.captured, training, folder)
    trained = draft.copied()
    trained.captured, trained.params = network.trained_model(draft.captured), network.params()
    trained.floats = {}
    return trained, notes


def _key(job: QATJob, draft: Draft) -> str:
    """Identity of a training: what is trained, on which grids, with what."""
    training = job.training
    content: dict[str, Any] = {
        "model": model_digest(draft.captured),
        "plan": plan_record(draft.plan, draft.params),
        "config": asdict(training.config),
        "quantize": asdict(job.quantize),
        "source": _fingerprint(training.source),
        "runner": repr(training.runner_config),
        "seed": training.seed,
        "amp": training.amp,
        "version": __version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()


def _fingerprint(source: Any) -> str:
    if source is None:
        return ""
    # Nothing tells whether a loader of the caller's own gives the same samples again.
    return str(source.fingerprint()) if hasattr(source, "fingerprint") else uuid.uuid4().hex


def _same_run(folder: Path, key: str) -> bool:
    """Whether ``folder`` holds the training ``key``, begun or finished; another one's is removed."""
    file = folder / "training.json"
    try:
        same = bool(json.loads(file.read_text())["key"] == key)
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(file, json_text({"key": key}))
    return same
