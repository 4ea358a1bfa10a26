"""From a model to engines that compute as it does: in float, or in the integers that an ONNX file already holds."""

from __future__ import annotations

import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from razordeploy.artifact import Artifact, staged_directory, write_artifact
from razordeploy.backends.base import Backend, ExportJob, Runner
from razordeploy.backends.harness import Parity, in_batches_of, interleaved_latency, size_bytes
from razordeploy.each_backend import Made, Timer, make_each, open_backends
from razordeploy.environment import versions
from razordeploy.errors import BackendError
from razordeploy.job import DeployJob, PTQResult, begin
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.stored import plan_record
from razordeploy.source import Source
from razordeploy.strict_json import json_text
from razordeploy.validation import both_metrics, graph_record, of_batch, rule_findings, unbuilt

MIN_SQNR_DB = {False: 40.0, True: 20.0}
"""Least signal-to-noise ratio of the engine's outputs, by whether the source is quantized. Float engines of one model
agree to 100 dB, half-precision ones to 50; integer kernels round differently, and a wrong one gives less than 10."""


@dataclass(kw_only=True)
class ConvertJob(DeployJob):
    """A model that is to be run by other engines, as it is."""

    source: Source


def run_convert(job: ConvertJob) -> PTQResult:
    """Write, measure and hold against its source one engine per backend.

    Raises:
        MissingDependency: none of the backends asked for is installed.
        RazorDeployError: no backend made an engine; nothing is written then.
        Interrupted: ``job.progress.stop`` asked for it.
    """
    backends, errors = open_backends(job.backends)
    result = PTQResult(artifacts={}, backends={}, warnings=[], errors=errors)
    make_each(backends, result, lambda backend: _make(job, backend))
    return result


def _make(job: ConvertJob, backend: Backend) -> Made:
    if backend.simulated_only:
        raise BackendError(f"backend '{backend.name}' makes no engines", hint="razordeploy ptq simulates with it")
    source, target, timer = job.source, job.work_dir / backend.name, Timer()
    plan = QuantPlan(backend=backend.name, points=(), ops=source.ops)
    with staged_directory(target) as staged:
        with timer("export"):
            begin(job, f"{backend.name}: export")
            files = {**_export(source, backend, plan, staged), "plan": "placement.json"}
            (staged / "placement.json").write_text(json_text(plan_record(plan, {})))
        with timer("validate"):
            entry = _validate(job, backend, plan, staged, files)
        begin(job, f"{backend.name}: write")
        write_artifact(
            staged,
            kind="engine" if "engine" in files else "quantized" if source.is_quantized else "float",
            stage="convert",
            files=files,
            inputs=source.inputs,
            outputs=source.outputs,
            parent=source.identity,
            params={"backend": backend.name, "deploy": asdict(job.deploy), **job.origin},
            metrics={k: v for k, v in entry.items() if k in {"metrics", "gap", "parity", "size_bytes"}},
            versions=versions((*backend.spec.requires, *backend.spec.engine_requires)),
        )
        job.before_replacing()
    entry.update(unbuilt(job, backend, target, files, source.inputs))
    return Artifact.load(target), {**entry, "seconds": timer.seconds, "files": files}


def _export(source: Source, backend: Backend, plan: QuantPlan, folder: Path) -> dict[str, str]:
    if backend.convert is not None:
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            return backend.convert(source.write_onnx(Path(temporary), backend.spec.opset), folder)
    if source.is_quantized:
        raise BackendError(
            f"backend '{backend.name}' takes no quantized ONNX file", hint="give it the float model: razordeploy ptq"
        )
    files = backend.export(ExportJob(captured=source.as_captured(), plan=plan, params={}, out_dir=folder))
    for role in [role for role in files if role.split("_")[0] == "float"]:
        (folder / files.pop(role)).unlink()  # the engine itself is in float
    return files


def _validate(
    job: ConvertJob, backend: Backend, plan: QuantPlan, folder: Path, files: dict[str, str]
) -> dict[str, Any]:
    source = job.source
    built = "engine" in files
    engine = backend.load(folder, files, "engine" if built else "onnx", job.threads)
    if not built:
        backend = replace(backend, simulated_only=True)
    begin(job, f"{backend.name}: validate")
    parity, side = Parity(), "simulated" if source.is_quantized else "float"
    run, reference = (in_batches_of(source.batch, runner) for runner in (engine, source.reference))
    entry: dict[str, Any] = {}
    if job.evaluation is not None:
        first, second = both_metrics(job, reference, run, parity)
        name = next(key for key in first if key != "samples")
        entry["metrics"] = {side: first, "engine": second} if built else {side: first}
        entry["gap"] = {f"{side}_to_engine": first[name] - second[name]} if built else {}
    else:
        arrays = [x.numpy() for x in next(iter(job.calibration())).inputs]
        parity.update(reference(*arrays), run(*arrays))
    begin(job, f"{backend.name}: measure")
    entry["parity"] = parity.result()
    entry.update(graph_record(plan, engine.runtime_ops(), backend))
    entry.update(_speed_and_size(job, engine, folder, files) if built else {})
    entry.update(rule_findings(folder, files))
    entry["limits"] = {"max_drop": job.deploy.max_drop, "min_sqnr_db": MIN_SQNR_DB[source.is_quantized]}
    entry["failures"] = _failures(entry, parity)
    entry["passed"] = not entry["failures"]
    return entry


def _failures(entry: dict[str, Any], parity: Parity) -> list[str]:
    found = [f"{f['node']}: {f['message']}" for f in entry.get("findings", ()) if f["severity"] == "error"]
    sqnr, least = entry["parity"]["sqnr_db"], entry["limits"]["min_sqnr_db"]
    if not math.isfinite(parity.noise):
        found.append("the engine's outputs are not finite")
    elif sqnr is not None and sqnr < least:
        found.append(f"the engine's outputs are {sqnr:.1f} dB from the source's, less than {least:.0f}")
    limit = entry["limits"]["max_drop"]
    drops = [drop for drop in entry.get("gap", {}).values() if drop > limit]
    return [*found, *(f"the engine loses {drop:.2f} points, over {limit}" for drop in drops)]


def _speed_and_size(job: ConvertJob, engine: Runner, folder: Path, files: dict[str, str]) -> dict[str, Any]:
    source = job.source
    sizes = {"engine": size_bytes(folder, files, "engine")}
    if source.size_bytes is not None and not source.is_quantized:
        sizes["float"] = source.size_bytes
    found: dict[str, Any] = {"size_bytes": sizes}
    if job.benchmark_seconds > 0:
        inputs: list[np.ndarray] = [of_batch(x, source.batch or job.deploy.batch_size) for x in source.samples]
        time = interleaved_latency({"engine": engine}, inputs, seconds=job.benchmark_seconds)["engine"]
        found["latency_ms"] = {"engine": {"p50": time.p50_ms, "p90": time.p90_ms, "p99": time.p99_ms}}
        found["latency_samples_ms"] = {"engine": list(time.samples_ms)}
    return found
