"""Post-training quantization from a float module to measured engines, one artifact a backend."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from razordeploy.backends.base import Backend
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.sections import DeployConfig
from razordeploy.cost_aware import placed_by_cost
from razordeploy.deployment import Deployment, marked_once
from razordeploy.each_backend import Made, Timer, make_each, open_backends
from razordeploy.errors import ModelError, RecipeError, UsageError
from razordeploy.garbage import collection_paused
from razordeploy.job import PTQJob, PTQResult, begin
from razordeploy.preparation import improve_all, prepare, with_widths, work_on
from razordeploy.quantization.algorithms.table import build_algorithms
from razordeploy.quantization.dead import dead_values
from razordeploy.quantization.qconfig import check_patterns
from razordeploy.recovery import recovered
from razordeploy.repair import make_right
from razordeploy.validation import doubt, evaluate_float


def run_ptq(job: PTQJob) -> PTQResult:
    """Capture once, calibrate once, then place, export and validate for every backend.

    Raises:
        MissingDependency: none of the backends asked for is installed.
        RazorDeployError: the model or the data cannot be used, or no backend made an engine; nothing is written then.
        Interrupted: ``job.progress.stop`` asked for it.
    """
    check_model(job.model)
    build_algorithms(job.quantize.algorithms)
    backends, errors = open_backends(job.backends)
    timer = Timer()
    with timer("capture"), collection_paused():
        begin(job, "capture", kept="nothing is kept")
        captured = capture(job.model, job.example_inputs, dynamic_batch=job.deploy.dynamic_batch)
    check_tensor_names(job.deploy, captured)
    check_patterns(job.quantize, captured)
    widths: list[str] = []
    job = with_widths(job, captured, backends, widths)
    prepared = prepare(job, captured, backends, timer)
    calibration = prepared.calibration
    notes = [*captured.warnings, *calibration.notes, *widths]
    drafts = prepared.drafts
    for draft in list(drafts.values())[:1]:
        notes += dead_values(captured, draft.plan, calibration.statistics)
    if job.quantize.algorithms:
        with timer("improve"):
            drafts = improve_all(job, prepared, work_on(job, captured, notes))
    with timer("export"), collection_paused():
        begin(job, "export")
        marked = marked_once(job, captured, backends, [d.plan for d in prepared.drafts.values()])
    begin(job, "evaluate the float model")
    float_metrics = evaluate_float(job, captured, calibration.seen, notes)
    deployment = Deployment(job=job, captured=captured, float_metrics=float_metrics, marked=marked)

    def make(backend: Backend) -> Made:
        draft = drafts[backend.name]
        if not any(op.int8 for op in draft.plan.ops):
            notes.append(f"{backend.name}: no operation of the model can be quantized: the engine computes in float")
        placed = placed_by_cost(deployment, backend, draft, calibration.head, notes)
        draft, made = make_right(placed.deployment, backend, placed.draft, notes)
        if job.recover:
            work = work_on(job, captured, [])
            made = recovered(placed.deployment, backend, draft, made, work, job.finetune)
        artifact, entry = made
        notes.extend(doubt(backend.name, entry))
        entry.update(placed.entry)
        entry["seconds"] = _together(timer.seconds, placed.seconds, entry["seconds"])
        entry["calibration"] = {"samples": calibration.statistics.samples, "seconds": timer.seconds["calibrate"]}
        return artifact, entry

    result = PTQResult(artifacts={}, backends={}, warnings=notes, errors=errors)
    make_each(backends, result, make)
    return result


def _together(*parts: Mapping[str, float]) -> dict[str, float]:
    """Seconds by step; a step that comes twice adds up."""
    total: dict[str, float] = {}
    for step, seconds in (item for part in parts for item in part.items()):
        total[step] = total.get(step, 0.0) + seconds
    return total


def check_model(model: object) -> None:
    """Refuse what cannot be captured for a CPU.

    Raises:
        UsageError: no torch module.
        ModelError: weights that are not float32, or not on the CPU.
    """
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"expected a torch.nn.Module, got {type(model).__name__}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        where = f"'{name}' of {type(model).__name__}"
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"expected float32 weights, got {dtype} in {where}", hint="convert them: model.float()")
        if tensor.device.type != "cpu":
            raise ModelError(f"expected weights on the CPU, got {where} on {tensor.device}", hint="model.cpu()")


def check_tensor_names(deploy: DeployConfig, captured: CapturedModel) -> None:
    """Refuse names of inputs or outputs that are not as many as the model has."""
    for key, names, nodes in (
        ("input_names", deploy.input_names, captured.placeholders()),
        ("output_names", deploy.output_names, captured.output_nodes()),
    ):
        if names is not None and len(names) != len(nodes):
            kind = key.partition("_")[0]
            raise RecipeError(f"deploy.{key} has {len(names)} names, the model has {len(nodes)} {kind}s")
