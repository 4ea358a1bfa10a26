"""``evaluate``, ``benchmark`` and ``compare``: what is made already, measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import Paths, Sets, Threads, app, pairs


@app.command()
def evaluate(
    paths: Paths,
    recipe: Annotated[str | None, typer.Option(help="Default: the recipe that the engine was made from.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of a recipe's model, instead of its own.")] = None,
    sets: Sets = None,
    threads: Threads = 0,
) -> None:
    """Accuracy of float, simulated and engine on the recipe's evaluation data; of a recipe, that of its torch model."""
    from razordeploy.cli.measure import evaluate_paths

    code = evaluate_paths(paths, recipe=recipe, checkpoint=checkpoint, overrides=pairs(sets), threads=threads)
    raise typer.Exit(code)


@app.command()
def benchmark(
    paths: Paths,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for all engines together.")] = 5.0,
    threads: Threads = 0,
) -> None:
    """Latency percentiles and throughput, side by side, interleaved."""
    from razordeploy.cli.measure import benchmark_paths

    benchmark_paths(paths, batch=batch, seconds=seconds, threads=threads)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="An engine folder, or an ONNX file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    batches: Annotated[int, typer.Option(min=1, help="Random batches to compare on.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
) -> None:
    """Differences of two engines: every output, and every layer's SQNR."""
    from razordeploy.cli.measure import compare_paths

    compare_paths(first, second, batches=batches, seed=seed)
