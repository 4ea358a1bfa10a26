"""``train``: what happens to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import Launcher, Recipe, Sets, app, pairs


@app.command()
def train(
    recipe: Recipe,
    work_dir: Annotated[Path | None, typer.Option(help="Default: the folder of the recipe's checkpoint.")] = None,
    sets: Sets = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the work dir.")] = False,
    amp: Annotated[bool, typer.Option(help="Mixed precision.")] = False,
    launcher: Launcher = "none",
) -> None:
    """Train the recipe's float model with mmengine's Runner."""
    from razordeploy.cli.train import run

    run(recipe, work_dir=work_dir, overrides=pairs(sets), resume=resume, amp=amp, launcher=launcher)
