"""``razordeploy VERB``: parses, calls one function per verb, and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from razordeploy.cli.signals import Signalled, raise_on_signals
from razordeploy.errors import InternalError, RazorDeployError, StorageError, UsageError, nearest

app = typer.Typer(
    name="razordeploy",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="From a trained PyTorch model to a small int8 engine, with the accuracy gap measured.",
    epilog="Exit codes: 0 all checks held, 1 a check failed, 2 bad input, 3 something is not installed, "
    "5 storage, 70 a mistake of razordeploy itself.",
)

Recipe = Annotated[
    str, typer.Argument(help="A recipe file, a shipped one such as ptq/digits_resnet8.py, or a float ONNX file.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a value of the recipe; several may follow."),
]
Paths = Annotated[list[Path], typer.Argument(help="Engine folders, work dirs that hold them, or ONNX files.")]
Threads = Annotated[int, typer.Option(min=0, help="Engine threads; 0: the engine's own choice.")]


_WORDS: list[str] = []
"""The command line, as typed."""


def _pairs(values: list[str] | None) -> dict[str, str]:
    pairs = {}
    for value in values or []:
        key, equals, text = value.partition("=")
        if not equals or not key:
            raise UsageError(f"--set: expected KEY=VALUE, got '{value}'", hint="for example --set deploy.max_drop=0.5")
        pairs[key] = text
    return pairs


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


@app.command()
def ptq(
    recipe: Recipe,
    backend: Annotated[str | None, typer.Option(help="Backends, comma-separated; default: the recipe's.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Float weights, instead of the recipe's.")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="Default: work_dirs/<recipe>/.")] = None,
    sets: Sets = None,
    max_drop: Annotated[float | None, typer.Option(min=0, help="Largest loss of the metric, in points.")] = None,
    threads: Threads = 0,
    benchmark_seconds: Annotated[float, typer.Option(min=0, help="Latency measurement per backend; 0: none.")] = 3.0,
    trust_checkpoint: Annotated[bool, typer.Option(help="Let the checkpoint run code while it loads.")] = False,
    data: Annotated[Path | None, typer.Option(help="A folder of images, instead of the recipe's.")] = None,
) -> None:
    """Float model -> calibrated, quantized, exported and validated engines."""
    from razordeploy.cli.ptq import run

    overrides = _pairs(sets)
    if max_drop is not None:
        overrides["deploy.max_drop"] = repr(max_drop)
    code = run(
        recipe,
        backends=None if backend is None else _split(backend),
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=overrides,
        command=shlex.join(["razordeploy", *_WORDS]),
        threads=threads,
        benchmark_seconds=benchmark_seconds,
        trust=trust_checkpoint,
        data=data,
    )
    raise typer.Exit(code)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(help="An ONNX file, an artifact's folder, or a recipe.")],
    backend: Annotated[str | None, typer.Option(help="Backends, comma-separated; default: the recipe's.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Float weights, instead of the recipe's.")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="Default: work_dirs/<model>/.")] = None,
    sets: Sets = None,
    recipe: Annotated[str | None, typer.Option(help="Whose data and limits the engines are held to.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder of images, instead of the recipe's.")] = None,
    threads: Threads = 0,
    benchmark_seconds: Annotated[float, typer.Option(min=0, help="Latency measurement per backend; 0: none.")] = 3.0,
    trust_checkpoint: Annotated[bool, typer.Option(help="Let the checkpoint run code while it loads.")] = False,
) -> None:
    """A model as it is, float or quantized -> validated engines."""
    from razordeploy.cli.convert import run

    code = run(
        model,
        backends=None if backend is None else _split(backend),
        checkpoint=checkpoint,
        work_dir=work_dir,
        overrides=_pairs(sets),
        recipe=recipe,
        data=data,
        command=shlex.join(["razordeploy", *_WORDS]),
        threads=threads,
        benchmark_seconds=benchmark_seconds,
        trust=trust_checkpoint,
    )
    raise typer.Exit(code)


@app.command()
def train(
    recipe: Recipe,
    work_dir: Annotated[Path | None, typer.Option(help="Default: the folder of the recipe's checkpoint.")] = None,
    sets: Sets = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in the work dir.")] = False,
    amp: Annotated[bool, typer.Option(help="Mixed precision.")] = False,
    launcher: Annotated[str, typer.Option(help="none, pytorch, slurm or mpi.")] = "none",
) -> None:
    """Train the recipe's float model with mmengine's Runner."""
    from razordeploy.cli.train import run

    run(recipe, work_dir=work_dir, overrides=_pairs(sets), resume=resume, amp=amp, launcher=launcher)


@app.command()
def evaluate(
    paths: Paths,
    recipe: Annotated[str | None, typer.Option(help="Default: the recipe that the engine was made from.")] = None,
    sets: Sets = None,
    threads: Threads = 0,
) -> None:
    """Accuracy of float, simulated and engine on the recipe's evaluation data."""
    from razordeploy.cli.measure import evaluate_paths

    raise typer.Exit(evaluate_paths(paths, recipe=recipe, overrides=_pairs(sets), threads=threads))


@app.command()
def benchmark(
    paths: Paths,
    batch: Annotated[int, typer.Option(min=1, help="Batch size.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time for all engines together.")] = 5.0,
    threads: Threads = 0,
) -> None:
    """Latency percentiles and throughput, side by side, interleaved."""
    from razordeploy.cli.measure import benchmark_paths

    benchmark_paths(paths, batch=batch, seconds=seconds, threads=threads)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="An engine folder, or an ONNX file.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    batches: Annotated[int, typer.Option(min=1, help="Random batches to compare on.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the random inputs.")] = 0,
) -> None:
    """Differences of two engines: every output, and every layer's SQNR."""
    from razordeploy.cli.measure import compare_paths

    compare_paths(first, second, batches=batches, seed=seed)


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


def _spread_sets(argv: Sequence[str]) -> list[str]:
    """Let ``--set a=1 b=2`` mean ``--set a=1 --set b=2``, as mmengine's tools do."""
    spread: list[str] = []
    after_set = False
    for word in argv:
        if after_set and spread[-1] != "--set" and not word.startswith("-") and "=" in word:
            spread.append("--set")
        elif word != "--set" and not (spread and spread[-1] == "--set"):
            after_set = False
        if word == "--set":
            after_set = True
        spread.append(word)
    return spread


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; always ends in ``sys.exit``, with one ``error:`` line where something is wrong."""
    try:
        with raise_on_signals():
            _WORDS[:] = sys.argv[1:] if argv is None else argv
            sys.exit(_run(_spread_sets(_WORDS)))
    except RazorDeployError as error:
        _fail(str(error), error.exit_code, error)
    except _ClickException as error:
        _fail(_usage_text(error), 2, error)
    except (Signalled, KeyboardInterrupt) as error:
        code = error.exit_code if isinstance(error, Signalled) else 128 + signal.SIGINT
        _fail("interrupted" if code == 128 + signal.SIGINT else "terminated", code, error)
    except Exception as error:
        known = _unexpected(error)
        _fail(str(known), known.exit_code, error)


def _run(words: Sequence[str]) -> int | None:
    try:
        code: int | None = app(words, prog_name="razordeploy", standalone_mode=False)
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        # Whoever read the output (head, less) has seen enough. rich and typer say 1, which would be a failed check.
        raise SystemExit(_SIGPIPE) from end
    return code


_SIGPIPE = 141
_ClickException: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def _usage_text(error: Any) -> str:
    text = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    if not text:
        text = "expected a command"
        if context is not None:
            print(context.get_help())
    path = context.command_path if context is not None else "razordeploy"
    wrong = re.match(r"No such command '(.*?)'", text)
    if wrong:
        text = f"{wrong[0]}; {nearest(wrong[1], _commands())}"
    return f"{text}; see {path} --help"


def _commands() -> list[str]:
    return [c.name or c.callback.__name__ for c in app.registered_commands if c.callback is not None]


def _unexpected(error: Exception) -> RazorDeployError:
    """What nobody raised on purpose, as one line and an exit code."""
    text = str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "not enough memory" in text:
        return StorageError("out of memory", hint="lower calibration.batch_size, or close other programs")
    if isinstance(error, OSError) and error.errno in _STORAGE:
        place = f" {error.filename}" if error.filename else ""
        hint = "free some space or give another --work-dir"
        return StorageError(f"cannot write{place}: {error.strerror}", hint=hint)
    return InternalError(error)


_STORAGE = {errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EPERM, errno.EROFS}


def _fail(text: str, code: int, error: BaseException) -> None:
    if os.environ.get("RAZORDEPLOY_DEBUG"):
        traceback.print_exception(error)
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
