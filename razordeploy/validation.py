"""Hold every engine against its simulation and the float model: accuracy, parity, coverage, latency, size."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from razordeploy.artifact import TensorSpec
from razordeploy.backends.base import Backend, Runner, RuntimeOp
from razordeploy.backends.harness import Parity, coverage, in_batches_of, interleaved_latency, size_bytes, torch_runner
from razordeploy.backends.node_map import node_records
from razordeploy.capture.graph import CapturedModel
from razordeploy.data.batch import Batch
from razordeploy.job import DeployJob, begin
from razordeploy.quantization.calibrate import checked_stream, sample_digests
from razordeploy.quantization.compare import compare_layers
from razordeploy.quantization.describe import scheme_records
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.simulate import simulate
from razordeploy.train.evaluate import evaluate

_DOUBTFUL_DB = 10.0
"""Noise of a tenth of the signal's power; eight bits keep 25 to 45 dB on trained networks."""
_ASTRAY_DB = 20.0
"""What an engine keeps of its simulation at least: kernels that compute what was planned keep 30 dB and more, and in
networks that amplify every rounding no less than half of what quantization itself keeps."""
_FEW = 8
"""Samples that the layers are compared on and, without evaluation data, the engine is held against its simulation."""


def evaluate_float(
    job: DeployJob, captured: CapturedModel, calibrated_on: set[str], notes: list[str]
) -> dict[str, float]:
    """Metrics of the float model; this first pass over the evaluation data also checks it."""
    if job.evaluation is None:
        return {}
    seen: set[str] = set()

    def stream() -> Iterator[Batch]:
        found = stoppable(job)
        for batch in checked_stream(found, captured, "evaluation data", notes=notes, min_samples=0):
            seen.update(sample_digests(batch))
            yield batch

    scores = evaluate(any_batch(captured, torch_runner(captured.graph_module)), stream(), job.metric)
    both = len(seen & calibrated_on)
    # A few images are in both parts of many a public data set.
    if both > 0.05 * len(calibrated_on):
        notes.append(
            f"{both} of {len(calibrated_on)} calibration samples are also evaluated on: the accuracy is not that of "
            "unseen data; calibrate on the training split"
        )
    return scores


def any_batch(captured: CapturedModel, run: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``run`` take batches of any size, whatever the capture fixed."""
    return in_batches_of(None if captured.dynamic_batch else captured.batch_size, run)


def stoppable(job: DeployJob) -> Iterator[Batch]:
    """The evaluation data, until the run is asked to end."""
    assert job.evaluation is not None
    done = 0
    for batch in job.evaluation():
        yield batch
        done += len(batch)
        job.progress.advance(done, None)
        if job.progress.stop():
            begin(job, "")


def validate(
    job: DeployJob,
    backend: Backend,
    captured: CapturedModel,
    plan: QuantPlan,
    params: Mapping[str, QParams],
    folder: Path,
    files: Mapping[str, str],
    float_metrics: dict[str, float],
    reference: CapturedModel | None = None,
) -> dict[str, Any]:
    """Run, count and time the engine in ``folder``; returns its entry in the report.

    Where no engine was built, the exported graph takes its place: it is run as it is written, it gives the simulated
    metrics, and is held against torch's simulation. Nothing is counted as int8 and nothing is timed then.

    Args:
        job: the data, the limits and what is to be measured.
        backend: loads the engine.
        captured: the graph that ``plan`` is for, whose weights the engine has rounded.
        plan: what was to be quantized.
        params: scale and zero point of each group.
        folder: where the exporter wrote.
        files: role -> file name.
        float_metrics: of the float model.
        reference: what the layers are compared with, where it is not ``captured``: the same graph in float.
    """
    simulated = simulate(captured, plan, params)
    built = "engine" in files
    engine = backend.load(folder, files, "engine" if built else "onnx", job.threads)
    if not built:
        backend = replace(backend, simulated_only=True)
    begin(job, f"{backend.name}: validate")
    parity = Parity(step=_output_step(captured, plan, params))
    entry: dict[str, Any] = {}
    inputs = few_samples(job, captured)
    entry["layers"], expected, in_float = compare_layers(reference or captured, plan, simulated, inputs)
    outputs = engine(*(x.numpy() for x in inputs))
    entry["fidelity"] = fidelity(in_float, outputs)
    if job.evaluation is not None:
        tested = any_batch(captured, torch_runner(simulated))
        first, second = both_metrics(job, tested, any_batch(captured, engine), parity)
        entry["metrics"] = {"float": float_metrics, "simulated": first if built else second}
        if built:
            entry["metrics"]["engine"] = second
        entry["gap"] = _gaps(entry["metrics"])
    else:
        parity.update(expected, outputs)
    begin(job, f"{backend.name}: measure")
    entry["parity"] = parity.result()
    kernels = engine.runtime_ops()
    entry.update(graph_record(plan, kernels, backend))
    entry["ops"] = node_records(captured, plan, backend, kernels)
    entry["scheme"] = scheme_records(plan)
    entry.update(_speed_and_size(job, backend, captured, engine, folder, files))
    entry["limits"] = {"max_drop": job.deploy.max_drop}
    entry.update(rule_findings(folder, files))
    drop = entry.get("gap", {}).get("float_to_engine" if built else "float_to_simulated")
    entry["failures"] = [f"{f['node']}: {f['message']}" for f in entry.get("findings", ()) if f["severity"] == "error"]
    entry["astray"] = is_astray(in_float, expected, outputs)
    if entry["astray"]:
        entry["failures"].append(
            "the engine computes something else than what was planned: its outputs are farther from the simulation's "
            "than those are from the float model's"
        )
    what = "the engine" if built else "the simulated model"
    if not all_finite(outputs) and all_finite(in_float):
        entry["failures"].append(f"{what} gives values that are not finite where the float model's are")
    if drop is not None and drop > job.deploy.max_drop:
        entry["failures"].append(f"{what} loses {drop:.2f} points, over {job.deploy.max_drop}")
    entry["passed"] = not entry["failures"]
    return entry


def fidelity(in_float: Sequence[torch.Tensor], outputs: Any) -> dict[str, Any]:
    """Outputs against the float model's: the largest difference, the SQNR of the worst output, and the samples."""
    each = []
    for expected, found in zip(in_float, tree_leaves(outputs), strict=True):
        each.append(Parity())
        each[-1].update(expected.numpy(), found)
    ratios = [p.result()["sqnr_db"] for p in each]
    return {
        "max_abs": max(p.max_abs for p in each),
        "sqnr_db": min((r for r in ratios if r is not None), default=None),
        "samples": len(in_float[0]) if in_float[0].ndim else 1,
    }


def is_astray(in_float: Sequence[Any], simulated: Sequence[Any], engine: Any) -> bool:
    """Tell whether an engine computes something else than its simulation does.

    Args:
        in_float: outputs of the float model.
        simulated: outputs of the simulation.
        engine: outputs of the engine.
    """
    for expected, planned, found in zip(in_float, simulated, tree_leaves(engine), strict=True):
        if not np.issubdtype(np.asarray(found).dtype, np.floating):
            continue
        quantization, engines = Parity(), Parity()
        quantization.update(expected, planned)
        engines.update(planned, found)
        ratio = engines.result()["sqnr_db"]
        if ratio is not None and ratio < _ASTRAY_DB and engines.noise > 2 * quantization.noise:
            return True
    return False


def all_finite(outputs: Any) -> bool:
    """Tell whether no output has a NaN or an infinity."""
    return all(np.isfinite(np.asarray(x)).all() for x in tree_leaves(outputs))


def doubt(backend: str, entry: Mapping[str, Any]) -> list[str]:
    """What to say of an engine that answers otherwise than the float model while no labels tell what that costs."""
    ratio = entry.get("fidelity", {}).get("sqnr_db")
    if "metrics" in entry or ratio is None or ratio >= _DOUBTFUL_DB:
        return []
    return [
        f"{backend}: the outputs are far from the float model's ({ratio:.1f} dB of signal to noise on "
        f"{entry['fidelity']['samples']} calibration samples); give labelled data to see what that costs, and "
        "razordeploy analyze to see where it comes from"
    ]


def rule_findings(folder: Path, files: Mapping[str, str]) -> dict[str, Any]:
    """What the backend's own rules say of the exported graph, where it has such rules."""
    return {"findings": json.loads((folder / files["findings"]).read_text())} if "findings" in files else {}


def unbuilt(
    job: DeployJob, backend: Backend, target: Path, files: Mapping[str, str], inputs: Sequence[TensorSpec]
) -> dict[str, Any]:
    """What the entry of a backend says whose graph is written and whose engine cannot be built here.

    Args:
        job: batch sizes of the engine.
        backend: says what it lacks.
        target: the folder that the files will lie in.
        files: role to file name.
        inputs: the model's, in call order.
    """
    lacking = None if "engine" in files else backend.absent()
    if lacking is None:
        return {}
    entry: dict[str, Any] = {"passed": False, "exit_code": lacking.exit_code, "missing": str(lacking)}
    if backend.build_line is not None:
        largest = max(job.deploy.batch_size, job.deploy.max_batch)
        entry["build"] = backend.build_line(target / files["onnx"], inputs, job.deploy.batch_size, largest)
    return entry


def both_metrics(
    job: DeployJob, reference: Any, engine: Any, parity: Parity
) -> tuple[dict[str, float], dict[str, float]]:
    """Metrics of the reference and of the engine on the evaluation data; ``parity`` compares their outputs."""
    expected: list[Any] = []

    def run_reference(*inputs: np.ndarray) -> Any:
        expected.append(reference(*inputs))
        return expected[-1]

    def run_engine(*inputs: np.ndarray) -> Any:
        result = engine(*inputs)
        parity.update(expected.pop(0), result)
        return result

    first = evaluate(run_reference, stoppable(job), job.metric)
    return first, evaluate(run_engine, stoppable(job), job.metric)


def _gaps(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Differences of the first metric, in points; positive is a loss."""
    key = next(k for k in metrics["float"] if k != "samples")
    float_, simulated = (metrics[side][key] for side in ("float", "simulated"))
    if "engine" not in metrics:
        return {"float_to_simulated": float_ - simulated}
    engine = metrics["engine"][key]
    return {
        "float_to_simulated": float_ - simulated,
        "simulated_to_engine": simulated - engine,
        "float_to_engine": float_ - engine,
    }


def graph_record(plan: QuantPlan, ops: Sequence[RuntimeOp], backend: Backend) -> dict[str, Any]:
    """``coverage`` and ``graph``: what was planned against what the engine's own graph says."""
    found = coverage(plan.ops, ops)
    floats = [] if backend.simulated_only else [asdict(f) for f in found.float_ops]
    return {
        "coverage": {"planned": found.planned, "int8": 0 if backend.simulated_only else found.int8, "float": floats},
        "graph": [{"name": o.name, "op": o.type, "precision": o.precision} for o in ops],
    }


def _output_step(captured: CapturedModel, plan: QuantPlan, params: Mapping[str, QParams]) -> float | None:
    """Scale of the model's output where the plan quantizes it."""
    outputs = {n.name for n in captured.output_nodes()}
    scales = [float(params[p.group].scale.max()) for p in plan.points if p.node in outputs and "output" in p.users]
    return max(scales) if scales else None


def few_samples(job: DeployJob, captured: CapturedModel) -> tuple[torch.Tensor, ...]:
    """The first calibration samples, which layers and engines are compared on; as many as a fixed batch takes."""
    batch = next(iter(job.calibration()))
    count = min(_FEW, len(batch)) if captured.dynamic_batch else captured.batch_size
    rows = torch.arange(count).clamp(max=len(batch) - 1)
    return tuple(x[rows] for x in batch.inputs)


def _speed_and_size(
    job: DeployJob, backend: Backend, captured: CapturedModel, engine: Runner, folder: Path, files: Mapping[str, str]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if backend.simulated_only:
        return found
    found["size_bytes"] = {role: size_bytes(folder, files, role) for role in ("float", "engine")}
    if job.benchmark_seconds > 0:
        batch = job.deploy.batch_size if captured.dynamic_batch else captured.batch_size
        inputs = [of_batch(t, batch) for t in captured.example_inputs]
        twin = backend.load(folder, files, "float", job.threads)
        times = interleaved_latency({"float": twin, "engine": engine}, inputs, seconds=job.benchmark_seconds)
        found["benchmark"] = {"batch": batch, "threads": job.threads}
        found["latency_ms"] = {k: {"p50": t.p50_ms, "p90": t.p90_ms, "p99": t.p99_ms} for k, t in times.items()}
        found["latency_samples_ms"] = {k: list(t.samples_ms) for k, t in times.items()}
        found["speedup"] = times["float"].p50_ms / times["engine"].p50_ms
    return found


def of_batch(example: torch.Tensor, batch: int) -> np.ndarray:
    """``batch`` samples, repeating those of the example."""
    repeats = -(-batch // example.shape[0])
    return np.ascontiguousarray(torch.cat([example] * repeats)[:batch].numpy())
