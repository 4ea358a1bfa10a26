"""``analyze``: which layers lose the accuracy."""

from __future__ import annotations

from typing import Annotated

import typer

from razordeploy.cli.app import (
    Backends,
    Checkpoint,
    Folder,
    Images,
    Recipe,
    Sets,
    Trust,
    app,
    command_line,
    pairs,
    split,
)


@app.command()
def analyze(
    recipe: Recipe,
    backend: Backends = None,
    checkpoint: Checkpoint = None,
    work_dir: Folder = None,
    sets: Sets = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples that every variant is measured on.")] = 256,
    keep: Annotated[int, typer.Option(min=0, help="Layers that the line to paste keeps in float.")] = 3,
    trust_checkpoint: Trust = False,
    data: Images = None,
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
