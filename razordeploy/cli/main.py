"""``razordeploy VERB``: parses, calls one function per verb, and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import typer

from razordeploy.cli.app import WORDS, app
from razordeploy.cli.signals import Signalled, raise_on_signals
from razordeploy.cli.verbs import analyze, deploy, hpo, inspect, measure, migrate, run, search, subnet, train
from razordeploy.errors import InternalError, RazorDeployError, StorageError, nearest

# Each module adds its verbs to the application when it is imported.
VERBS = (deploy, train, search, subnet, run, analyze, measure, inspect, hpo, migrate)


def _spread(argv: Sequence[str]) -> list[str]:
    """Let ``--channel-cfgs a b`` mean ``--channel-cfgs a --channel-cfgs b``, and ``--set a=1 b=2`` the like."""
    spread: list[str] = []
    for word in _spread_sets(argv):
        listed = spread[-2:-1] == ["--channel-cfgs"] and not word.startswith("-")
        spread += ["--channel-cfgs", word] if listed else [word]
    return spread


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
    WORDS[:] = sys.argv[1:] if argv is None else argv
    guarded(lambda: _run(_spread(WORDS)))


def guarded(work: Callable[[], int | None]) -> None:
    """Exit with what ``work`` returns, or with one line and a code of the contract where it raises."""
    try:
        with raise_on_signals():
            sys.exit(work())
    except RazorDeployError as error:
        _fail(str(error), error.exit_code, error)
    except _ClickException as error:
        _fail(_usage_text(error), 2, error)
    except (Signalled, KeyboardInterrupt) as error:
        _ended(error)
    except Exception as error:
        known = _unexpected(error)
        _fail(str(known), known.exit_code, error)


def _ended(error: BaseException) -> NoReturn:
    code = error.exit_code if isinstance(error, Signalled) else 128 + signal.SIGINT
    _fail("interrupted" if code == 128 + signal.SIGINT else "terminated", code, error)


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
        known = context.command.list_commands(context) if context is not None else _commands()
        text = f"{wrong[0]}; {nearest(wrong[1], known)}"
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


def _fail(text: str, code: int, error: BaseException) -> NoReturn:
    if os.environ.get("RAZORDEPLOY_DEBUG"):
        traceback.print_exception(error)
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
