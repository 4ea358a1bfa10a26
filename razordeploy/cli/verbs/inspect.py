"""``backends`` and ``doctor``: this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from razordeploy.cli.app import app


@app.command()
def backends() -> None:
    """Backends, and the pip line for what is missing."""
    from razordeploy.cli.inspect import print_backends

    print_backends()


@app.command()
def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """What is installed and works here."""
    from razordeploy.cli.inspect import doctor as examine

    raise typer.Exit(examine(json_output=json_output))
