"""``ptq``, ``qat`` and ``convert``: models -> engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import (
    Backends,
    Checkpoint,
    Folder,
    Images,
    Launcher,
    MaxDrop,
    Recipe,
    Seconds,
    Sets,
    Threads,
    Trust,
    app,
    command_line,
    pairs,
    split,
)


@app.command()
def ptq(
    recipe: Recipe,
    backend: Backends = None,
    checkpoint: Checkpoint = None,
    work_dir: Folder = None,
    sets: Sets = None,
    max_drop: MaxDrop = None,
    threads: Threads = 0,
    benchmark_seconds: Seconds = 3.0,
    trust_checkpoint: Trust = False,
    data: Images = None,
    recover: Annotated[
        bool,
        typer.Option("--recover", help="Try algorithms until --max-drop holds."),
    ] = False,
) -> None:
    """Float model -> calibrated, quantized, exported and validated engines."""
    from razordeploy.cli.ptq import run

    overrides = pairs(sets)
    if max_drop is not None:
        overrides["deploy.max_drop"] = repr(max_drop)
    code = run(
        recipe,
        backends=None if backend is None else split(backend),
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=overrides,
        command=command_line(),
        threads=threads,
        benchmark_seconds=benchmark_seconds,
        trust=trust_checkpoint,
        data=data,
        recover=recover,
    )
    raise typer.Exit(code)


@app.command()
def qat(
    recipe: Recipe,
    backend: Backends = None,
    checkpoint: Checkpoint = None,
    work_dir: Folder = None,
    sets: Sets = None,
    max_drop: MaxDrop = None,
    threads: Threads = 0,
    benchmark_seconds: Seconds = 3.0,
    trust_checkpoint: Trust = False,
    data: Images = None,
    amp: Annotated[bool, typer.Option(help="Mixed precision while training.")] = False,
    launcher: Launcher = "none",
) -> None:
    """Float model -> engines, trained on each backend's own grids; goes on where it was interrupted."""
    from razordeploy.cli.qat import run

    overrides = pairs(sets)
    if max_drop is not None:
        overrides["deploy.max_drop"] = repr(max_drop)
    code = run(
        recipe,
        backends=None if backend is None else split(backend),
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=overrides,
        command=command_line(),
        threads=threads,
        benchmark_seconds=benchmark_seconds,
        trust=trust_checkpoint,
        amp=amp,
        launcher=launcher,
        data=data,
    )
    raise typer.Exit(code)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="An ONNX file, an artifact's folder, or a recipe.")],
    backend: Backends = None,
    checkpoint: Checkpoint = None,
    work_dir: Annotated[Path | None, typer.Option(help="Default: work_dirs/<model>/.")] = None,
    sets: Sets = None,
    recipe: Annotated[str | None, typer.Option(help="Whose data and limits the engines are held to.")] = None,
    data: Images = None,
    threads: Threads = 0,
    benchmark_seconds: Seconds = 3.0,
    trust_checkpoint: Trust = False,
) -> None:
    """A model as it is, float or quantized -> validated engines."""
    from razordeploy.cli.convert import run

    code = run(
        model,
        backends=None if backend is None else split(backend),
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=pairs(sets),
        recipe=recipe,
        data=data,
        command=command_line(),
        threads=threads,
        benchmark_seconds=benchmark_seconds,
        trust=trust_checkpoint,
    )
    raise typer.Exit(code)
