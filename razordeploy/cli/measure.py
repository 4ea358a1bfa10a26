"""``razordeploy evaluate``, ``benchmark`` and ``compare`` on engines that exist."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from razordeploy.artifact import Artifact, TensorSpec
from razordeploy.backends.harness import Parity, in_batches_of, interleaved_latency, torch_runner
from razordeploy.backends.loaded import Engine, engine_folders, load_engine
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.cli.jobs import RecipeJob
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import UsageError
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.stored import read_plan
from razordeploy.report.schema import gaps
from razordeploy.report.wording import fixed
from razordeploy.train.evaluate import evaluate


def _artifacts(paths: Sequence[Path]) -> list[Artifact]:
    found = []
    for path in paths:
        folders = engine_folders(path)
        if not folders:
            Artifact.load(path)  # says what is wrong with it
            raise UsageError(f"{path} holds no engine")
        found += [Artifact.load(folder) for folder in folders]
    for artifact in found:
        artifact.verify()
    return found


def evaluate_paths(paths: Sequence[Path], *, recipe: str | None, overrides: Mapping[str, str], threads: int) -> int:
    """Print float, simulated and engine metrics of every engine; 1 where a gap is over the recipe's limit."""
    table = _table("engine", "float", "simulated", "engine", "gap", "samples", "verdict")
    failed = False
    opened: dict[tuple[str, str, str], tuple[RecipeJob, CapturedModel, dict[str, float]]] = {}
    for artifact in _artifacts(paths):
        if "engine" not in artifact.files:
            raise UsageError(f"{artifact.path} has no engine to run: its backend only simulates")
        source = recipe or artifact.params.get("recipe")
        if not source:
            raise UsageError(f"{artifact.path} does not know its recipe", hint="give --recipe")
        options = {**artifact.params.get("overrides", {}), **overrides}
        checkpoint = artifact.params.get("checkpoint")
        key = (str(source), json.dumps(options, sort_keys=True), str(checkpoint))
        if key not in opened:
            job = RecipeJob.open(load_recipe(source, options), checkpoint)
            captured = capture(job.built.module, job.example_inputs(), dynamic_batch=job.recipe.deploy.dynamic_batch)
            size = None if captured.dynamic_batch else captured.batch_size
            float_run = in_batches_of(size, torch_runner(captured.graph_module))
            float_metrics = evaluate(float_run, job.evaluation(), job.metric())
            opened[key] = (job, captured, float_metrics)
        job, captured, float_metrics = opened[key]
        plan, params = read_plan(artifact.file("plan"))
        size = None if captured.dynamic_batch else captured.batch_size
        run = in_batches_of(size, torch_runner(simulate(captured, plan, params)))
        simulated = evaluate(run, job.evaluation(), job.metric())
        found = evaluate(in_batches_of(size, Engine(artifact, threads=threads)), job.evaluation(), job.metric())
        metric = next(k for k in found if k != "samples")
        gap = gaps({"float": {**float_metrics}, "simulated": {**simulated}, "engine": {**found}}, metric)[
            "float_to_engine"
        ]
        held = gap is not None and gap <= job.recipe.deploy.max_drop
        if artifact.parent != model_digest(captured):
            print(
                f"warning: {artifact.path} was made from other weights than {job.recipe.path} has now: float and "
                "simulated are those of the new ones; run razordeploy ptq again",
                file=sys.stderr,
            )
        failed |= not held
        row = [fixed(scores.get(metric)) for scores in (float_metrics, simulated, found)]
        verdict = "passed" if held else f"FAILED (limit {job.recipe.deploy.max_drop})"
        table.add_row(str(artifact.path), *row, fixed(gap), f"{found['samples']:.0f}", verdict)
    Console().print(table)
    return int(failed)


def benchmark_paths(paths: Sequence[Path], *, batch: int, seconds: float, threads: int) -> None:
    """Print latency percentiles of every engine and of the float twins, timed in turns."""
    engines: dict[str, Engine] = {}
    for artifact in _artifacts(paths):
        if "engine" not in artifact.files:
            raise UsageError(f"{artifact.path} has no engine to time: its backend only simulates")
        if "float" in artifact.files:
            engines[f"{artifact.path} (float)"] = Engine(artifact, "float", threads)
        engines[str(artifact.path)] = Engine(artifact, threads=threads)
    signatures = {name: [(s.shape, s.dtype) for s in engine.inputs] for name, engine in engines.items()}
    first, *others = signatures
    for name in others:
        if signatures[name] != signatures[first]:
            raise UsageError(f"{first} and {name} take different inputs", hint="benchmark them one after the other")
    inputs = engines[first].random_inputs(batch)
    times = interleaved_latency(engines, inputs, seconds=seconds)
    table = _table("engine", "p50 ms", "p90 ms", "p99 ms", "samples/s", "int8 ops")
    for name, latency in times.items():
        engine = engines[name]
        ops = engine.runtime_ops()
        row = (f"{v:.3f}" for v in (latency.p50_ms, latency.p90_ms, latency.p99_ms))
        table.add_row(name, *row, f"{latency.throughput:.1f}", f"{sum(o.int8 for o in ops)} of {len(ops)}")
    console = Console()
    console.print(table)
    console.print(f"batch {batch}, {threads or 'default'} threads, interleaved", markup=False)


def compare_paths(first: Path, second: Path, *, batches: int, seed: int) -> None:
    """Print how far two engines' outputs are apart on the same random inputs, and each layer's SQNR in both."""
    one, other = load_engine(first), load_engine(second)
    for kind in ("inputs", "outputs"):
        shapes = [[(s.shape, s.dtype) for s in getattr(engine, kind)] for engine in (one, other)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"{first} and {second} have different {kind}: {_specs(getattr(one, kind))} and "
                f"{_specs(getattr(other, kind))}"
            )
    parities = [Parity() for _ in one.outputs]
    for i in range(batches):
        inputs = one.random_inputs(4 if one.inputs[0].shape[0] is None else int(one.inputs[0].shape[0]), seed + i)
        for parity, a, b in zip(parities, _tuple(one(*inputs)), _tuple(other(*inputs)), strict=True):
            parity.update(a, b)
    table = _table("output", "largest difference", "steps", "SQNR dB")
    for spec, parity in zip(one.outputs, parities, strict=True):
        result = parity.result()
        table.add_row(spec.name, *(_number(result[k]) for k in ("max_abs", "steps", "sqnr_db")))
    console = Console()
    console.print(table)
    layers = [_layers(engine.artifact) for engine in (one, other)]
    if all(layers):
        table = _table("layer", "SQNR dB, first", "second")
        for name in dict.fromkeys([*layers[0], *layers[1]]):
            table.add_row(name, *(_number(found.get(name)) for found in layers))
        console.print(table)


def _specs(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{s.dtype} ({', '.join('N' if n is None else str(n) for n in s.shape)})" for s in specs)


def _layers(artifact: Artifact) -> dict[str, float | None]:
    if "layers" not in artifact.files:
        return {}
    return {f"{e['module']} {e['op']}": e["sqnr_db"] for e in json.loads(artifact.file("layers").read_text())}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i else "left", overflow="fold")
    return table
