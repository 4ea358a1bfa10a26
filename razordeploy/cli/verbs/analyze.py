"""``analyze``: which layers lose the accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import Recipe, Sets, app, command_line, pairs, split


@app.command()
def analyze(
    recipe: Recipe,
    backend: Annotated[str | None, typer.Option(help="Backends, comma-separated; default: the recipe's.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Float weights, instead of the recipe's.")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="Default: work_dirs/<recipe>/.")] = None,
    sets: Sets = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples that every variant is measured on.")] = 256,
    keep: Annotated[int, typer.Option(min=0, help="Layers that the line to paste keeps in float.")] = 3,
    trust_checkpoint: Annotated[bool, typer.Option(help="Let the checkpoint run code while it loads.")] = False,
    data: Annotated[Path | None, typer.Option(help="A folder of images, instead of the recipe's.")] = None,
) -> None:
    """Per layer, what quantizing it alone and all up to it loses; which to keep in float."""
    from razordeploy.cli.analyze import run

    code = run(
        recipe,
        backends=None if backend is None else split(backend),
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=pairs(sets),
        command=command_line(),
        samples=samples,
        keep=keep,
        trust=trust_checkpoint,
        data=data,
    )
    raise typer.Exit(code)
