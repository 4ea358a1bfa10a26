"""Post-training quantization from a float module to measured engines, one artifact a backend."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from razordeploy.artifact import Artifact, TensorSpec, staged_directory, write_artifact
from razordeploy.backends.base import Backend, Coverage, ExportJob, Runner
from razordeploy.backends.harness import Parity, coverage, in_batches_of, interleaved_latency, size_bytes, torch_runner
from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.config.sections import DeployConfig
from razordeploy.data.batch import Batch
from razordeploy.environment import versions
from razordeploy.errors import (
    BackendError,
    InternalError,
    MissingDependency,
    ModelError,
    RazorDeployError,
    RecipeError,
    UsageError,
)
from razordeploy.quantization.cache import Pass, StatisticsCache, model_digest, statistics_key
from razordeploy.quantization.calibrate import Interrupted, calibrate, checked_stream, of_size, sample_digests
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qconfig import check_patterns, settings_for
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import resolve
from razordeploy.quantization.stored import plan_record
from razordeploy.strict_json import json_text
from razordeploy.train.evaluate import evaluate

Batches = Callable[[], Iterable[Batch]]
"""Opens a data stream from its start."""


@dataclass(kw_only=True)
class Progress:
    """What a run tells while it works; the defaults say nothing."""

    stage: Callable[[str], None] = lambda text: None
    """A step begins."""
    advance: Callable[[int, int | None], None] = lambda done, total: None
    """Samples done in this step, and how many there are (None: not known)."""
    stop: Callable[[], bool] = lambda: False
    """Asked after every batch: True ends the run there, its statistics kept."""


@dataclass(kw_only=True)
class PTQJob:
    """A float model, its data, and what is to become of it."""

    model: torch.nn.Module
    example_inputs: tuple[Any, ...]
    calibration: Batches
    backends: Sequence[str]
    work_dir: Path
    evaluation: Batches | None = None
    """Labelled data; None: no accuracy is measured."""
    metric: Any = "top1"
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    deploy: DeployConfig = field(default_factory=DeployConfig)
    calibration_samples: int | None = None
    """For the progress display only."""
    data_fingerprint: str | None = None
    """Identity of the calibration data; None: statistics are not kept on disk."""
    threads: int = 0
    """Engine threads; 0: the engine's choice."""
    benchmark_seconds: float = 3.0
    """Time for the latency measurement of one backend; 0 skips it."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the model came from (recipe, overrides, checkpoint), for the manifest."""
    progress: Progress = field(default_factory=Progress)


@dataclass(kw_only=True)
class PTQResult:
    """Artifacts by backend and the report's content; a failed backend has an entry in the report only."""

    artifacts: dict[str, Artifact]
    backends: dict[str, dict[str, Any]]
    """Per backend, the fields of ``report.json``."""
    warnings: list[str]
    errors: dict[str, RazorDeployError]


def run_ptq(job: PTQJob) -> PTQResult:
    """Capture once, calibrate once, then place, export and validate for every backend.

    Raises:
        MissingDependency: none of the backends asked for is installed.
        RazorDeployError: the model or the data cannot be used, or no backend made an engine; nothing is written then.
        Interrupted: ``job.progress.stop`` asked for it.
    """
    _check_model(job.model)
    backends, errors = _open_backends(job.backends)
    timer = _Timer()
    with timer("capture"):
        _stage(job, "capture", kept="nothing is kept")
        captured = capture(job.model, job.example_inputs, dynamic_batch=job.deploy.dynamic_batch)
    _check_tensor_names(job.deploy, captured)
    check_patterns(job.quantize, captured)
    with timer("place"):
        plans = {b.name: b.plan(captured, settings_for(b.spec, job.quantize)) for b in backends}
    with timer("calibrate"):
        _stage(job, "calibrate", kept="nothing is kept")
        calibration = _calibrate(job, captured, list(plans.values()))
    statistics = calibration.statistics
    notes = [*captured.warnings, *calibration.notes]
    params = {name: resolve(captured, plan, statistics) for name, plan in plans.items()}
    with timer("export"):
        _stage(job, "export")
        marked = _marked(job, captured, backends, plans)
    _stage(job, "evaluate the float model")
    float_metrics = _evaluate_float(job, captured, calibration.seen, notes)
    result = PTQResult(artifacts={}, backends={}, warnings=notes, errors=errors)
    shared = {"calibration": {"samples": statistics.samples, "seconds": timer.seconds["calibrate"]}}
    for backend in backends:
        name = backend.name
        if not any(op.int8 for op in plans[name].ops):
            notes.append(f"{name}: no operation of the model can be quantized: the engine computes in float")
        try:
            artifact, entry = _deploy(job, backend, captured, plans[name], params[name], marked, float_metrics)
        except RazorDeployError as error:
            errors[name] = error
            continue
        except MemoryError:
            raise
        except Exception as error:
            # A mistake in one backend does not cost the engines of the others; it is reported, and fails the run.
            errors[name] = InternalError(error)
            continue
        entry["seconds"] = {**timer.seconds, **entry.get("seconds", {})}
        result.artifacts[name] = artifact
        result.backends[name] = {**shared, **entry}
    if not result.artifacts:
        raise _all_failed(errors)
    for name, failure in errors.items():
        result.backends[name] = {"passed": False, "error": str(failure), "exit_code": failure.exit_code}
    return result


def _stage(job: PTQJob, text: str, kept: str = "the calibration statistics are kept") -> None:
    """Begin a step, unless the run was asked to end."""
    if job.progress.stop():
        raise Interrupted(kept if job.data_fingerprint is not None else "nothing is kept")
    job.progress.stage(text)


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


def _all_failed(errors: Mapping[str, RazorDeployError]) -> RazorDeployError:
    """The error of a run that made nothing: the worst one, with the others' texts."""
    worst = max(errors.values(), key=lambda error: error.exit_code)
    if len(errors) == 1:
        return worst
    text = "; ".join(f"{name}: {error}" for name, error in errors.items())
    combined = type(worst).__new__(type(worst))
    RazorDeployError.__init__(combined, text)
    combined.__cause__ = worst
    return combined


class _Timer:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[step] = self.seconds.get(step, 0.0) + time.perf_counter() - start


def _open_backends(names: Sequence[str]) -> tuple[list[Backend], dict[str, RazorDeployError]]:
    found: list[Backend] = []
    errors: dict[str, RazorDeployError] = {}
    for name in dict.fromkeys(names):
        try:
            found.append(find_backend(name))
        except (MissingDependency, BackendError) as error:
            errors[name] = error
    if not found:
        raise _all_failed(errors)
    return found, errors


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


def _evaluate_float(
    job: PTQJob, captured: CapturedModel, calibrated_on: set[str], notes: list[str]
) -> dict[str, float]:
    """Metrics of the float model; this first pass over the evaluation data also checks it."""
    if job.evaluation is None:
        return {}
    seen: set[str] = set()

    def stream() -> Iterator[Batch]:
        found = _stoppable(job)
        for batch in checked_stream(found, captured, "evaluation data", notes=notes, min_samples=0):
            seen.update(sample_digests(batch))
            yield batch

    scores = evaluate(_any_batch(captured, torch_runner(captured.graph_module)), stream(), job.metric)
    both = len(seen & calibrated_on)
    # A few images are in both parts of many a public data set.
    if both > 0.05 * len(calibrated_on):
        notes.append(
            f"{both} of {len(calibrated_on)} calibration samples are also evaluated on: the accuracy is not that of "
            "unseen data; calibrate on the training split"
        )
    return scores


def _any_batch(captured: CapturedModel, run: Callable[..., Any]) -> Callable[..., Any]:
    return in_batches_of(None if captured.dynamic_batch else captured.batch_size, run)


def _stoppable(job: PTQJob) -> Iterator[Batch]:
    assert job.evaluation is not None
    done = 0
    for batch in job.evaluation():
        yield batch
        done += len(batch)
        job.progress.advance(done, None)
        if job.progress.stop():
            _stage(job, "")


def _deploy(
    job: PTQJob,
    backend: Backend,
    captured: CapturedModel,
    plan: QuantPlan,
    params: Mapping[str, QParams],
    marked: Any,
    float_metrics: dict[str, float],
) -> tuple[Artifact, dict[str, Any]]:
    timer = _Timer()
    target = job.work_dir / backend.name
    with staged_directory(target) as staged:
        with timer("export"):
            _stage(job, f"{backend.name}: export")
            files = backend.export(
                ExportJob(captured=captured, plan=plan, params=params, out_dir=staged, marked=marked)
            )
            (staged / "placement.json").write_text(json_text(plan_record(plan, params)))
            files = {**files, "plan": "placement.json"}
        with timer("validate"):
            entry = _validate(job, backend, captured, plan, params, staged, files, float_metrics)
            (staged / "layers.json").write_text(json_text(entry["layers"]))
            files["layers"] = "layers.json"
        inputs, outputs = _tensor_specs(job, captured)
        _stage(job, f"{backend.name}: write")
        write_artifact(
            staged,
            kind="engine" if not backend.simulated_only else "quantized",
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
    entry["seconds"] = timer.seconds
    entry["files"] = files
    return Artifact.load(target), entry


def _validate(
    job: PTQJob,
    backend: Backend,
    captured: CapturedModel,
    plan: QuantPlan,
    params: Mapping[str, QParams],
    folder: Path,
    files: Mapping[str, str],
    float_metrics: dict[str, float],
) -> dict[str, Any]:
    simulated = _any_batch(captured, torch_runner(simulate(captured, plan, params)))
    engine = backend.load(folder, files, "engine", job.threads)
    _stage(job, f"{backend.name}: validate")
    parity = Parity(step=_output_step(captured, plan, params))
    entry: dict[str, Any] = {}
    if job.evaluation is not None:
        metrics = _both(job, simulated, _any_batch(captured, engine), parity)
        entry["metrics"] = {"float": float_metrics, **metrics}
        entry["gap"] = _gaps(entry["metrics"])
    else:
        for batch in job.calibration():
            arrays = [x.numpy() for x in batch.inputs]
            parity.update(simulated(*arrays), _any_batch(captured, engine)(*arrays))
            break
    _stage(job, f"{backend.name}: measure")
    entry["parity"] = parity.result()
    entry["coverage"] = _coverage_record(coverage(plan.ops, engine.runtime_ops()), backend)
    entry["graph"] = [{"name": o.name, "op": o.type, "precision": o.precision} for o in engine.runtime_ops()]
    entry["layers"] = _layers(job, captured, plan, params)
    entry.update(_speed_and_size(job, backend, captured, engine, folder, files))
    entry["limits"] = {"max_drop": job.deploy.max_drop}
    drop = entry.get("gap", {}).get("float_to_engine")
    entry["passed"] = drop is None or drop <= job.deploy.max_drop
    entry["failures"] = [] if entry["passed"] else [f"the engine loses {drop:.2f} points, over {job.deploy.max_drop}"]
    return entry


def _both(job: PTQJob, simulated: Any, engine: Any, parity: Parity) -> dict[str, dict[str, float]]:
    """Simulated and engine metrics in one pass over the evaluation data."""
    expected: list[Any] = []

    def run_simulated(*inputs: np.ndarray) -> Any:
        expected.append(simulated(*inputs))
        return expected[-1]

    def run_engine(*inputs: np.ndarray) -> Any:
        result = engine(*inputs)
        parity.update(expected.pop(0), result)
        return result

    first = evaluate(run_simulated, _stoppable(job), job.metric)
    second = evaluate(run_engine, _stoppable(job), job.metric)
    return {"simulated": first, "engine": second}


def _gaps(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Differences of the first metric, in points; positive is a loss."""
    key = next(k for k in metrics["float"] if k != "samples")
    float_, simulated, engine = (metrics[side][key] for side in ("float", "simulated", "engine"))
    return {
        "float_to_simulated": float_ - simulated,
        "simulated_to_engine": simulated - engine,
        "float_to_engine": float_ - engine,
    }


def _coverage_record(found: Coverage, backend: Backend) -> dict[str, Any]:
    if backend.simulated_only:
        return {"planned": found.planned, "int8": 0, "float": []}
    return {"planned": found.planned, "int8": found.int8, "float": [asdict(f) for f in found.float_ops]}


def _output_step(captured: CapturedModel, plan: QuantPlan, params: Mapping[str, QParams]) -> float | None:
    """Scale of the model's output where the plan quantizes it."""
    outputs = {n.name for n in captured.output_nodes()}
    scales = [float(params[p.group].scale.max()) for p in plan.points if p.node in outputs and "output" in p.users]
    return max(scales) if scales else None


def _layers(
    job: PTQJob, captured: CapturedModel, plan: QuantPlan, params: Mapping[str, QParams]
) -> list[dict[str, Any]]:
    from razordeploy.quantization.compare import layer_sqnr

    stream = job.calibration()
    batch = next(iter(stream if captured.dynamic_batch else of_size(stream, captured.batch_size)))
    count = 8 if captured.dynamic_batch else captured.batch_size
    return layer_sqnr(captured, plan, params, tuple(x[:count] for x in batch.inputs))


def _speed_and_size(
    job: PTQJob, backend: Backend, captured: CapturedModel, engine: Runner, folder: Path, files: Mapping[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if backend.simulated_only:
        return found
    found["size_bytes"] = {role: size_bytes(folder, files, role) for role in ("float", "engine")}
    if job.benchmark_seconds > 0:
        batch = job.deploy.batch_size if captured.dynamic_batch else captured.batch_size
        inputs = [_of_batch(t, batch) for t in captured.example_inputs]
        twin = backend.load(folder, files, "float", job.threads)
        times = interleaved_latency({"float": twin, "engine": engine}, inputs, seconds=job.benchmark_seconds)
        found["latency_ms"] = {k: {"p50": t.p50_ms, "p90": t.p90_ms, "p99": t.p99_ms} for k, t in times.items()}
        found["latency_samples_ms"] = {k: list(t.samples_ms) for k, t in times.items()}
        found["speedup"] = times["float"].p50_ms / times["engine"].p50_ms
    return found


def _of_batch(example: torch.Tensor, batch: int) -> np.ndarray:
    repeats = -(-batch // example.shape[0])
    return np.ascontiguousarray(torch.cat([example] * repeats)[:batch].numpy())


def _tensor_specs(job: PTQJob, captured: CapturedModel) -> tuple[list[TensorSpec], list[TensorSpec]]:
    def spec(name: str, value: torch.Tensor) -> TensorSpec:
        sizes = tuple(s if isinstance(s, int) else None for s in value.shape)
        return TensorSpec(name=name, shape=sizes, dtype=str(value.dtype).removeprefix("torch."))

    inputs = captured.placeholders()
    names = job.deploy.input_names or [n.name for n in inputs]
    outputs = captured.output_nodes()
    given = job.deploy.output_names or [f"output_{i}" if len(outputs) > 1 else "output" for i in range(len(outputs))]
    return (
        [spec(name, n.meta["val"]) for name, n in zip(names, inputs, strict=True)],
        [spec(name, n.meta["val"]) for name, n in zip(given, outputs, strict=True)],
    )
