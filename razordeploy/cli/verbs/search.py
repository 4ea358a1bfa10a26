"""``search``: which part of a supernet is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import Recipe, Sets, app, command_line, pairs


@app.command()
def search(
    recipe: Recipe,
    checkpoint: Annotated[Path | None, typer.Option(help="Weights of the supernet, instead of the recipe's.")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="Default: work_dirs/<recipe>.")] = None,
    sets: Sets = None,
    workers: Annotated[int, typer.Option(min=0, help="Candidates scored at once; 0: as the recipe says.")] = 0,
    trust_checkpoint: Annotated[bool, typer.Option(help="Let the checkpoint run code.")] = False,
) -> None:
    """Search a trained supernet for the best subnet: writes fix_subnet.yaml, its weights and a report."""
    from razordeploy.cli.search import run

    code = run(
        recipe,
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=pairs(sets),
        workers=workers,
        trust=trust_checkpoint,
        command=command_line(),
    )
    raise typer.Exit(code)
