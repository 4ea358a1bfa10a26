"""The command line's application, and what the verbs in ``cli/verbs/`` share."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from razordeploy import __version__
from razordeploy.errors import UsageError

app = typer.Typer(
    name="razordeploy",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="From a trained PyTorch model to a small int8 engine, with the accuracy gap measured.",
    epilog="Exit codes: 0 all checks held, 1 a check failed, 2 bad input, 3 something is not installed, "
    "5 storage, 70 a mistake of razordeploy itself.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"razordeploy {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None: ...


Recipe = Annotated[
    str,
    typer.Argument(
        help="A recipe file, a shipped one such as ptq/digits_resnet8.py, a float ONNX file, or a model's folder that "
        "'razordeploy export' wrote."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe; several may follow."),
]
Paths = Annotated[list[Path], typer.Argument(help="Engine folders, work dirs that hold them, ONNX files, or recipes.")]
Backends = Annotated[str | None, typer.Option("--backend", help="Backends, comma-separated; default: the recipe's.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Float weights, instead of the recipe's.")]
Folder = Annotated[Path | None, typer.Option("--work-dir", help="Default: work_dirs/<recipe>/.")]
MaxDrop = Annotated[float | None, typer.Option(min=0, help="Largest loss of the metric, in points.")]
Seconds = Annotated[float, typer.Option(min=0, help="Latency measurement per backend; 0: none.")]
Trust = Annotated[bool, typer.Option(help="Let the checkpoint run code while it loads.")]
Images = Annotated[Path | None, typer.Option("--data", help="A folder of images, instead of the recipe's.")]
Launcher = Annotated[str, typer.Option(help="none, pytorch, slurm or mpi.")]
Threads = Annotated[int, typer.Option(min=0, help="Engine threads; 0: the engine's own choice.")]

WORDS: list[str] = []
"""The command line, as typed."""


def command_line() -> str:
    """What was typed, for reports and for the line that resumes."""
    return shlex.join(["razordeploy", *WORDS])


def pairs(values: list[str] | None) -> dict[str, str]:
    """``["a.b=1"]`` as a dict.

    Raises:
        UsageError: a value without ``=``.
    """
    found = {}
    for value in values or []:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise UsageError(f"--set: expected KEY=VALUE, got '{value}'", hint="for example --set deploy.max_drop=0.5")
        found[key] = text
    return found


def split(names: str) -> list[str]:
    """A comma-separated option as a list."""
    return [name.strip() for name in names.split(",") if name.strip()]
