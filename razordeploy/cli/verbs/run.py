"""``run``: whole pipelines."""

from __future__ import annotations

from typing import Annotated

import typer

from razordeploy.cli.app import WORDS, Folder, Recipe, Sets, app, pairs


@app.command()
def run(
    recipe: Recipe,
    work_dir: Folder = None,
    sets: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check recipe, data, backends, disk; print the plan.")
    ] = False,
    start: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Run again from this stage on.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="STAGE", help="Stop after this stage.")] = None,
) -> None:
    """A recipe's whole pipeline; what is done and unchanged is not done again."""
    from razordeploy.cli.run import run as run_pipeline

    code = run_pipeline(
        recipe,
        work_dir=work_dir,
        overrides=pairs(sets),
        dry_run=dry_run,
        start=start,
        until=until,
        command=["razordeploy", *WORDS],
    )
    raise typer.Exit(code)
