"""``migrate``: the predecessor's configs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import app


@app.command()
def migrate(
    config: Annotated[Path, typer.Argument(help="A config of mmrazor.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the recipe here.")] = None,
) -> None:
    """A config of mmrazor -> a recipe, every line that changes meaning commented."""
    from razordeploy.cli.migrate import run

    run(config, output)
