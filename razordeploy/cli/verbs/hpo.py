"""``hpo``: hyper-parameter search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from razordeploy.cli.app import Sets, app, command_line, pairs

hpo = typer.Typer(no_args_is_help=True, help="Hyper-parameter search over any command line.")
ctl = typer.Typer(no_args_is_help=True, help="Look at a study, stop it, go on with it.")
app.add_typer(hpo, name="hpo")
hpo.add_typer(ctl, name="ctl")

Study = Annotated[Path, typer.Argument(help="The work dir of the study.")]
Parallel = Annotated[int | None, typer.Option(min=1, help="Trials at once, instead of the task's parallel_size.")]


@hpo.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to write hpo.yaml and an example to search.")] = Path(),
    force: Annotated[bool, typer.Option(help="Replace files that are there.")] = False,
) -> None:
    """Write a commented task file, and a small command that it searches."""
    from razordeploy.cli.hpo import init as write

    write(folder, force=force)


@hpo.command()
def run(
    task: Annotated[Path, typer.Argument(help="The task, a YAML file.")],
    work_dir: Annotated[Path | None, typer.Option(help="Default: work_dirs/<task>/.")] = None,
    sets: Sets = None,
    parallel: Parallel = None,
) -> None:
    """Run a study; one that was interrupted goes on."""
    from razordeploy.cli.hpo import run as search

    overrides = pairs(sets)
    if parallel is not None:
        overrides["scheduler.parallel_size"] = str(parallel)
    folder = work_dir or Path("work_dirs") / task.stem
    raise typer.Exit(search(task, folder, overrides=overrides, command=command_line()))


@ctl.command()
def show(
    work_dir: Study,
    json_output: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    most: Annotated[int, typer.Option(min=1, help="Trials to list, the latest ones.")] = 30,
) -> None:
    """Every trial with its state, and the best."""
    from razordeploy.cli.hpo import show as show_study

    show_study(work_dir, json_output=json_output, most=most)


@ctl.command()
def stop(
    work_dir: Study,
    now: Annotated[bool, typer.Option(help="End the running trials too; resume runs them again.")] = False,
) -> None:
    """Let the study's run end after the trials that run now."""
    from razordeploy.cli.hpo import stop as stop_study

    stop_study(work_dir, now=now)


@ctl.command()
def resume(
    work_dir: Study,
    sets: Sets = None,
    parallel: Parallel = None,
) -> None:
    """Go on with a study that was stopped, interrupted or killed."""
    from razordeploy.cli.hpo import resume as go_on

    overrides = pairs(sets)
    if parallel is not None:
        overrides["scheduler.parallel_size"] = str(parallel)
    raise typer.Exit(go_on(work_dir, overrides=overrides))
