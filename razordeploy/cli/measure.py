"""``razordeploy evaluate``, ``benchmark`` and ``compare`` on engines and ONNX files that exist."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from razordeploy.artifact import Artifact, TensorSpec
from razordeploy.backends.base import Runner
from razordeploy.backends.harness import Parity, in_batches_of, interleaved_latency, torch_runner
from razordeploy.backends.loaded import Engine, engine_folders, load_engine, no_engine
from razordeploy.backends.onnx_file import OnnxFile
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.capture.onnx_import.file import is_onnx
from razordeploy.cli.jobs import RecipeJob
from razordeploy.cli.measure_recipe import evaluate_recipe
from razordeploy.config.paths import RECIPE_SUFFIXES
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import UsageError
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.changes import with_changes
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.stored import read_plan
from razordeploy.report.schema import gaps
from razordeploy.report.wording import fixed
from razordeploy.sliced import as_recipe
from razordeploy.storage import MANIFEST
from razordeploy.train.evaluate import evaluate, module_predict
from razordeploy.validation import any_batch

_MODELS = ("float", "sliced", "subnet", "supernet")
"""Kinds of artifacts that hold a model instead of an engine."""


def _artifacts(path: Path) -> list[Artifact]:
    folders = engine_folders(path)
    if not folders:
        Artifact.load(path)  # says what is wrong with it
        raise UsageError(f"{path} holds no engine")
    found = [Artifact.load(folder) for folder in folders]
    for artifact in found:
        artifact.verify()
    return found


def evaluate_paths(
    paths: Sequence[Path],
    *,
    recipe: str | None,
    checkpoint: Path | None = None,
    overrides: Mapping[str, str],
    threads: int,
) -> int:
    """Print float, simulated and engine metrics of every engine; 1 where a gap is over the recipe's limit.

    Of an ONNX file, and of an engine that is converted from one, there is one metric only; of a recipe, which takes
    the ``checkpoint``, the float one and, where that holds scales, the simulated one.
    """
    table = _table("engine", "float", "simulated", "engine", "gap", "samples", "verdict")
    known: dict[tuple[str, str, str], tuple[RecipeJob, CapturedModel, dict[str, float]]] = {}
    held, unbuilt = True, 0
    for path in paths:
        if path.suffix in RECIPE_SUFFIXES and path.name != MANIFEST:
            evaluate_recipe(table, path, checkpoint, overrides)
            continue
        if is_onnx(path):
            file = OnnxFile(path, threads)
            _evaluate_alone(table, file, "engine" if file.is_quantized else "float", recipe or str(path), overrides)
            continue
        for artifact in _artifacts(path):
            if artifact.kind in _MODELS:
                _evaluate_model(table, artifact, recipe, overrides)
                continue
            if "engine" not in artifact.files:
                lacking = no_engine(artifact)
                if len(engine_folders(path)) == 1:
                    raise lacking
                print(f"error: {lacking}", file=sys.stderr)
                unbuilt = lacking.exit_code
                continue
            source = recipe or artifact.params.get("recipe")
            if not source:
                raise UsageError(f"{artifact.path} does not know its recipe", hint="give --recipe")
            options = {**artifact.params.get("overrides", {}), **overrides}
            if artifact.stage == "convert":
                _evaluate_alone(table, Engine(artifact, threads=threads), "engine", str(source), options)
            else:
                held &= _evaluate_three(table, artifact, str(source), options, threads, known)
    Console().print(table)
    return max(int(not held), unbuilt)


def _evaluate_model(table: Table, artifact: Artifact, recipe: str | None, overrides: Mapping[str, str]) -> None:
    """Add the row of a float model, as ``razordeploy export`` wrote it."""
    path, options = as_recipe(artifact.path)
    job = RecipeJob.open(load_recipe(path, {**options, **overrides}))
    data = job if recipe is None else RecipeJob.open(load_recipe(recipe))
    found = evaluate(module_predict(job.built.module), data.evaluation(), data.metric())
    metric = next(k for k in found if k != "samples")
    table.add_row(str(artifact.path), fixed(found[metric]), "-", "-", "-", f"{found['samples']:.0f}", "-")


def _evaluate_alone(
    table: Table, engine: Engine | OnnxFile, column: str, recipe: str, options: Mapping[str, str]
) -> None:
    batch = next((spec.shape[0] for spec in engine.inputs if spec.shape), None)
    inputs = tuple(torch.from_numpy(x) for x in engine.random_inputs(batch or 1))
    job = RecipeJob.for_engine(load_recipe(recipe, options), inputs, engine.outputs)
    found = evaluate(in_batches_of(batch, engine), job.evaluation(), job.metric())
    metric = next(k for k in found if k != "samples")
    cells = [fixed(found[metric]) if name == column else "-" for name in ("float", "simulated", "engine")]
    table.add_row(_name(engine), *cells, "-", f"{found['samples']:.0f}", "-")


def _evaluate_three(
    table: Table,
    artifact: Artifact,
    recipe: str,
    options: Mapping[str, str],
    threads: int,
    known: dict[tuple[str, str, str], tuple[RecipeJob, CapturedModel, dict[str, float]]],
) -> bool:
    """Add the engine's row; True where it holds the recipe's limit. ``known`` keeps what engines share."""
    checkpoint = artifact.params.get("checkpoint")
    trained = artifact.stage == "qat"
    key = (recipe, json.dumps(options, sort_keys=True), f"{checkpoint} {trained}")
    if key not in known:
        job = RecipeJob.open(load_recipe(recipe, options), checkpoint, switch=trained)
        dynamic = job.recipe.deploy.dynamic_batch
        captured = capture(job.built.module, job.example_inputs(), dynamic_batch=dynamic, keep_norms=trained)
        float_run = any_batch(captured, torch_runner(captured.graph_module))
        known[key] = (job, captured, evaluate(float_run, job.evaluation(), job.metric()))
    job, captured, float_metrics = known[key]
    plan, params = read_plan(artifact.file("plan"))
    quantized = with_changes(captured, artifact.file("changes")) if "changes" in artifact.files else captured
    run = any_batch(captured, torch_runner(simulate(quantized, plan, params)))
    simulated = evaluate(run, job.evaluation(), job.metric())
    found = evaluate(any_batch(captured, Engine(artifact, threads=threads)), job.evaluation(), job.metric())
    metric = next(k for k in found if k != "samples")
    gap = gaps({"float": {**float_metrics}, "simulated": {**simulated}, "engine": {**found}}, metric)["float_to_engine"]
    held = gap is not None and gap <= job.recipe.deploy.max_drop
    if artifact.parent != model_digest(captured):
        print(
            f"warning: {artifact.path} was made from other weights than {job.recipe.path} has now: float and "
            "simulated are those of the new ones; run razordeploy ptq again",
            file=sys.stderr,
        )
    row = [fixed(scores.get(metric)) for scores in (float_metrics, simulated, found)]
    verdict = "passed" if held else f"FAILED (limit {job.recipe.deploy.max_drop})"
    table.add_row(str(artifact.path), *row, fixed(gap), f"{found['samples']:.0f}", verdict)
    return held


def benchmark_paths(paths: Sequence[Path], *, batch: int, seconds: float, threads: int) -> None:
    """Print latency percentiles of every engine, of the float twins and of ONNX files, timed in turns."""
    engines: dict[str, Engine | OnnxFile] = {}
    for path in paths:
        if is_onnx(path):
            engines[str(path)] = OnnxFile(path, threads)
            continue
        for artifact in _artifacts(path):
            if "engine" not in artifact.files:
                if len(engine_folders(path)) == 1:
                    raise no_engine(artifact)
                print(f"warning: {no_engine(artifact)}", file=sys.stderr)
                continue
            if "float" in artifact.files:
                engines[f"{artifact.path} (float)"] = Engine(artifact, "float", threads)
            engines[str(artifact.path)] = Engine(artifact, threads=threads)
    # The one that leaves least open says what all of them are given.
    first = min(engines, key=lambda name: sum(s is None for spec in engines[name].inputs for s in spec.shape))
    for name, engine in engines.items():
        if not _agree(engine.inputs, engines[first].inputs):
            raise UsageError(f"{first} and {name} take different inputs", hint="benchmark them one after the other")
    inputs = engines[first].random_inputs(batch)
    runners: dict[str, Runner] = {name: engine.runner for name, engine in engines.items()}
    times = interleaved_latency(runners, inputs, seconds=seconds)
    table = _table("engine", "p50 ms", "p90 ms", "p99 ms", "samples/s", "int8 ops")
    for name, latency in times.items():
        ops = engines[name].runtime_ops()
        row = (f"{v:.3f}" for v in (latency.p50_ms, latency.p90_ms, latency.p99_ms))
        table.add_row(name, *row, f"{latency.throughput:.1f}", f"{sum(o.int8 for o in ops)} of {len(ops)}")
    console = Console()
    console.print(table)
    console.print(f"batch {batch}, {threads or 'default'} threads, interleaved", markup=False)


def compare_paths(first: Path, second: Path, *, batches: int, seed: int) -> None:
    """Print how far the outputs of two engines or ONNX files are apart on the same random inputs.

    Of two engines each layer's SQNR in both, too.
    """
    one, other = _load(first), _load(second)
    for kind in ("inputs", "outputs"):
        if not _agree(getattr(one, kind), getattr(other, kind)):
            raise UsageError(
                f"{first} and {second} have different {kind}: {_specs(getattr(one, kind))} and "
                f"{_specs(getattr(other, kind))}"
            )
    parities = [Parity() for _ in one.outputs]
    sizes = [e.inputs[0].shape[0] for e in (one, other) if e.inputs[0].shape and e.inputs[0].shape[0] is not None]
    for i in range(batches):
        inputs = one.random_inputs(int(sizes[0]) if sizes else 4, seed + i)
        for parity, a, b in zip(parities, _tuple(one(*inputs)), _tuple(other(*inputs)), strict=True):
            parity.update(a, b)
    table = _table("output", "largest difference", "steps", "SQNR dB")
    for spec, parity in zip(one.outputs, parities, strict=True):
        result = parity.result()
        table.add_row(spec.name, *(_number(result[k]) for k in ("max_abs", "steps", "sqnr_db")))
    console = Console()
    console.print(table)
    layers = [_layers(engine) for engine in (one, other)]
    if all(layers):
        table = _table("layer", "SQNR dB, first", "second")
        for name in dict.fromkeys([*layers[0], *layers[1]]):
            table.add_row(name, *(_number(found.get(name)) for found in layers))
        console.print(table)


def _load(path: Path) -> Engine | OnnxFile:
    return OnnxFile(path) if is_onnx(path) else load_engine(path)


def _name(engine: Engine | OnnxFile) -> str:
    return str(engine.path if isinstance(engine, OnnxFile) else engine.artifact.path)


def _agree(some: Sequence[TensorSpec], others: Sequence[TensorSpec]) -> bool:
    """Tell whether one set of arrays fits both; a size that either leaves open fits any."""

    def fits(a: TensorSpec, b: TensorSpec) -> bool:
        if a.dtype != b.dtype or not (a.shape and b.shape):
            return a.dtype == b.dtype
        pairs = list(zip(a.shape, b.shape, strict=False))
        return len(a.shape) == len(b.shape) and all(x == y or None in (x, y) for x, y in pairs)

    return len(some) == len(others) and all(fits(a, b) for a, b in zip(some, others, strict=True))


def _specs(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{s.dtype} ({', '.join('N' if n is None else str(n) for n in s.shape)})" for s in specs)


def _layers(engine: Engine | OnnxFile) -> dict[str, float | None]:
    if isinstance(engine, OnnxFile) or "layers" not in engine.artifact.files:
        return {}
    return {f"{e['module']} {e['op']}": e["sqnr_db"] for e in json.loads(engine.artifact.file("layers").read_text())}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i else "left", overflow="fold")
    return table
