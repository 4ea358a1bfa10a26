"""Post-training quantization from a float module to measured engines, one artifact a backend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import fx

from razordeploy.artifact import Artifact, staged_directory, write_artifact
from razordeploy.backends.base import Backend, ExportJob
from razordeploy.backends.usage import usage_text
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel, tensor_specs
from razordeploy.config.backend_spec import OpRule
from razordeploy.config.sections import DeployConfig
from razordeploy.data.batch import Batch
from razordeploy.each_backend import Made, Timer, make_each, open_backends
from razordeploy.environment import versions
from razordeploy.errors import ModelError, RecipeError, UsageError
from razordeploy.job import Batches, PTQJob, PTQResult, begin
from razordeploy.quantization.cache import Pass, StatisticsCache, model_digest, statistics_key
from razordeploy.quantization.calibrate import calibrate
from razordeploy.quantization.guard import costly_attention
from razordeploy.quantization.placement import OpSettings
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qconfig import check_patterns, settings_for
from razordeploy.quantization.statistics import resolve
from razordeploy.quantization.stored import plan_record
from razordeploy.strict_json import json_text
from razordeploy.validation import evaluate_float, unbuilt, validate


def run_ptq(job: PTQJob) -> PTQResult:
    """Capture once, calibrate once, then place, export and validate for every backend.

    Raises:
        MissingDependency: none of the backends asked for is installed.
        RazorDeployError: the model or the data cannot be used, or no backend made an engine; nothing is written then.
        Interrupted: ``job.progress.stop`` asked for it.
    """
    _check_model(job.model)
    backends, errors = open_backends(job.backends)
    timer = Timer()
    with timer("capture"):
        begin(job, "capture", kept="nothing is kept")
        captured = capture(job.model, job.example_inputs, dynamic_batch=job.deploy.dynamic_batch)
    _check_tensor_names(job.deploy, captured)
    check_patterns(job.quantize, captured)
    with timer("place"):
        plans = {b.name: b.plan(captured, settings_for(b.spec, job.quantize)) for b in backends}
    with timer("calibrate"):
        begin(job, "calibrate", kept="nothing is kept")
        calibration = _calibrate(job, captured, list(plans.values()))
    statistics = calibration.statistics
    notes = [*captured.warnings, *calibration.notes]
    params = {name: resolve(captured, plan, statistics) for name, plan in plans.items()}
    for backend in backends:
        _keep_costly_attention_float(job, backend, captured, plans, params, calibration)
    with timer("export"):
        begin(job, "export")
        marked = _marked(job, captured, backends, plans)
    begin(job, "evaluate the float model")
    float_metrics = evaluate_float(job, captured, calibration.seen, notes)

    def make(backend: Backend) -> Made:
        name = backend.name
        if not any(op.int8 for op in plans[name].ops):
            notes.append(f"{name}: no operation of the model can be quantized: the engine computes in float")
        artifact, entry = _deploy(job, backend, captured, plans[name], params[name], marked, float_metrics)
        entry["seconds"] = {**timer.seconds, **entry["seconds"]}
        entry["calibration"] = {"samples": statistics.samples, "seconds": timer.seconds["calibrate"]}
        return artifact, entry

    result = PTQResult(artifacts={}, backends={}, warnings=notes, errors=errors)
    make_each(backends, result, make)
    return result


def _check_model(model: object) -> None:
    if not isinstance(model, torch.nn.Module):
        raise UsageError(f"expected a torch.nn.Module, got {type(model).__name__}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        where = f"'{name}' of {type(model).__name__}"
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise ModelError(f"expected float32 weights, got {dtype} in {where}", hint="convert them: model.float()")
        if tensor.device.type != "cpu":
            raise ModelError(f"expected weights on the CPU, got {where} on {tensor.device}", hint="model.cpu()")


def _check_tensor_names(deploy: DeployConfig, captured: CapturedModel) -> None:
    for key, names, nodes in (
        ("input_names", deploy.input_names, captured.placeholders()),
        ("output_names", deploy.output_names, captured.output_nodes()),
    ):
        if names is not None and len(names) != len(nodes):
            kind = key.partition("_")[0]
            raise RecipeError(f"deploy.{key} has {len(names)} names, the model has {len(nodes)} {kind}s")


def _calibrate(job: PTQJob, captured: CapturedModel, plans: list[QuantPlan]) -> Pass:
    cache = None
    if job.data_fingerprint is not None:
        cache = StatisticsCache(job.work_dir / "cache", statistics_key(captured, job.data_fingerprint))
    return calibrate(
        captured,
        plans,
        _opened(job.calibration),
        cache=cache,
        advance=lambda samples: job.progress.advance(samples, job.calibration_samples),
        stop=job.progress.stop,
    )


def _keep_costly_attention_float(
    job: PTQJob,
    backend: Backend,
    captured: CapturedModel,
    plans: dict[str, QuantPlan],
    params: dict[str, dict[str, QParams]],
    calibration: Pass,
) -> None:
    """Plan anew, from the same statistics, without the attention products that calibration shows to cost too much."""
    name = backend.name
    limits = {kind: rule.min_sqnr_db for kind, rule in backend.spec.ops.items() if rule.min_sqnr_db is not None}
    if not limits or not calibration.head:
        return
    reasons = costly_attention(captured, plans[name], params[name], limits, calibration.head)
    if not reasons:
        return
    settings = settings_for(backend.spec, job.quantize)

    def without(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        found = settings(node, kind, rule)
        return replace(found, skip=found.skip or reasons.get(node.name))

    plans[name] = backend.plan(captured, without)
    params[name] = resolve(captured, plans[name], calibration.statistics)


def _opened(stream: Batches) -> Iterator[Batch]:
    """The stream, opened when its first batch is asked for."""
    yield from stream()


def _marked(job: PTQJob, captured: CapturedModel, backends: list[Backend], plans: Mapping[str, QuantPlan]) -> Any:
    readers = [b for b in backends if b.needs_onnx]
    if not readers:
        return None
    from razordeploy.backends.onnx_passes.export import export_marked

    return export_marked(
        captured,
        [plans[b.name] for b in readers],
        opset=max(b.spec.opset for b in readers),
        input_names=job.deploy.input_names,
        output_names=job.deploy.output_names,
    )


def _deploy(
    job: PTQJob,
    backend: Backend,
    captured: CapturedModel,
    plan: QuantPlan,
    params: Mapping[str, QParams],
    marked: Any,
    float_metrics: dict[str, float],
) -> tuple[Artifact, dict[str, Any]]:
    timer = Timer()
    target = job.work_dir / backend.name
    with staged_directory(target) as staged:
        with timer("export"):
            begin(job, f"{backend.name}: export")
            files = backend.export(
                ExportJob(
                    captured=captured,
                    plan=plan,
                    params=params,
                    out_dir=staged,
                    marked=marked,
                    options={"batch_size": job.deploy.batch_size, "max_batch": job.deploy.max_batch},
                )
            )
            (staged / "placement.json").write_text(json_text(plan_record(plan, params)))
            files = {**files, "plan": "placement.json"}
        with timer("validate"):
            entry = validate(job, backend, captured, plan, params, staged, files, float_metrics)
            (staged / "layers.json").write_text(json_text(entry["layers"]))
            files["layers"] = "layers.json"
        inputs, outputs = tensor_specs(captured, job.deploy.input_names, job.deploy.output_names)
        begin(job, f"{backend.name}: write")
        write_artifact(
            staged,
            kind="quantized" if backend.simulated_only or "engine" not in files else "engine",
            stage="ptq",
            files=files,
            inputs=inputs,
            outputs=outputs,
            parent=model_digest(captured),
            params={
                "backend": backend.name,
                "quantize": asdict(job.quantize),
                "deploy": asdict(job.deploy),
                **job.origin,
            },
            metrics={k: v for k, v in entry.items() if k in {"metrics", "gap", "parity", "size_bytes"}},
            versions=versions(backend.spec.requires),
        )
        job.before_replacing()
    entry["seconds"] = timer.seconds
    entry["files"] = files
    entry.update(unbuilt(job, backend, target, files, inputs))
    if "engine" in files:
        entry["usage"] = usage_text(backend.spec, target, files, inputs, job.deploy.batch_size)
    return Artifact.load(target), entry
