"""One trial, on the machine that runs it: a command with a JSON in and JSON lines out, ended when it hangs.

The trial's folder is all that passes between this process and the study: ``trial.json`` goes in; ``metrics.jsonl``,
``log.txt`` and, last and at once, ``result.json`` come out; a file ``stop`` asks for an early end.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from razordeploy.hpo.follow import FollowedFiles, lookup
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text

TRIAL, METRICS, LOG, RESULT, STOP = "trial.json", "metrics.jsonl", "log.txt", "result.json", "stop"
AGAIN = "again"
"""What ``stop`` asks for where the trial will run once more: it ends, and leaves no result."""
_TICK_S = 0.1
_STEP_KEYS = ("step", "epoch", "iter")
_TAIL_LINES = 20
_KILL_AFTER_S = 3.0


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What a worker needs to know of a trial."""

    number: int
    folder: str
    """Absolute; the study's machine and the worker's both see it."""
    rewards: tuple[str, ...]
    seed: int
    values: Mapping[str, Any]
    """What the searcher chose."""
    words: tuple[str, ...] = ()
    """The command; empty where a function is called."""
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    accept: tuple[int, ...] = (0,)
    cwd: str = "."
    result: str | None = None
    metrics: str | None = None
    timeout_s: float | None = None
    keep_log: bool = True


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What became of a trial."""

    status: str
    """``complete``; ``failed``, ``timeout``; ``stopped`` by the assessor; ``cancelled`` with the study."""
    values: Mapping[str, float] = field(default_factory=dict)
    """Last value of each reward."""
    reason: str | None = None
    seconds: float = 0.0
    exit_code: int | None = None
    steps: int = 0
    """Lines that held the reward."""
    silent: bool = False
    """True: the command ended well, and no reward was found."""


def read_result(folder: Path) -> TrialResult | None:
    """What a trial left; None: it has not ended."""
    try:
        return TrialResult(**json.loads((folder / RESULT).read_text()))
    except FileNotFoundError:
        return None


def write_result(folder: Path, result: TrialResult) -> TrialResult:
    """Keep what became of a trial: all of it, or nothing."""
    atomic_write(folder / RESULT, json_text(asdict(result)))
    return result


def prepare_folder(spec: TrialSpec) -> None:
    """Make the trial's folder, without what an earlier attempt left, and write what goes in."""
    folder = Path(spec.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (METRICS, LOG, STOP, RESULT):
        (folder / name).unlink(missing_ok=True)
    for name, text in spec.files.items():
        (folder / name).write_text(text)
    content = {"number": spec.number, "params": dict(spec.values), "seed": spec.seed, "command": list(spec.words)}
    atomic_write(folder / TRIAL, json_text(content))


class Reports:
    """Collects the rewards of one trial and keeps every line that holds one."""

    def __init__(self, spec: TrialSpec) -> None:
        self.last: dict[str, float] = {}
        self.steps = 0
        self._rewards = spec.rewards
        self._started = time.monotonic()
        self._file = (Path(spec.folder) / METRICS).open("a", encoding="utf-8")
        self._lock = threading.Lock()

    def line(self, text: str) -> None:
        """Take a line of output; anything but a JSON object with a reward is passed over."""
        text = text.strip()
        if text.startswith("{") and text.endswith("}"):
            with suppress(ValueError):
                self.take(json.loads(text))

    def take(self, content: Mapping[str, Any]) -> None:
        """Take the rewards in ``content``, by dotted names."""
        found = {name: value for name in self._rewards if (value := lookup(content, name)) is not None}
        if not found:
            return
        with self._lock:
            self.steps += 1
            step = next((content[k] for k in _STEP_KEYS if isinstance(content.get(k), int)), self.steps)
            self.last.update(found)
            seconds = round(time.monotonic() - self._started, 3)
            self._file.write(json.dumps({"step": step, "values": found, "seconds": seconds}) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run_trial(spec: TrialSpec) -> TrialResult:
    """Run a trial's command to its end, and write ``result.json``; never raises for what the command does."""
    folder = Path(spec.folder)
    started = time.monotonic()
    reports = Reports(spec)
    try:
        result = _run_command(spec, folder, reports)
    finally:
        reports.close()
    result = TrialResult(**{**asdict(result), "seconds": round(time.monotonic() - started, 3), "steps": reports.steps})
    if not spec.keep_log and result.status != "failed":
        (folder / LOG).unlink(missing_ok=True)
    asked = asked_to_stop(folder)
    return result if asked is not None and asked[0] == AGAIN else write_result(folder, result)


def _run_command(spec: TrialSpec, folder: Path, reports: Reports) -> TrialResult:
    environment = {
        **os.environ,
        "RAZORDEPLOY_TRIAL": str(folder / TRIAL),
        "RAZORDEPLOY_TRIAL_DIR": str(folder),
        "PYTHONUNBUFFERED": "1",
        **spec.env,
    }
    try:
        with warnings.catch_warnings():
            # Python 3.12 warns of code between fork and exec; this one takes no lock.
            warnings.simplefilter("ignore", DeprecationWarning)
            process = subprocess.Popen(
                spec.words,
                cwd=spec.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                preexec_fn=_lead_a_group if os.name == "posix" else None,  # noqa: PLW1509
            )
    except OSError as error:
        return TrialResult(status="failed", reason=f"cannot start {spec.words[0]}: {error.strerror}")
    ended = threading.Event()
    reader = threading.Thread(target=_read_output, args=(process, folder / LOG, reports, ended), daemon=True)
    reader.start()
    followed = FollowedFiles(spec.metrics, Path(spec.cwd))
    try:
        why = _watch(process, spec, folder, reports, followed, ended)
    finally:
        _end(process)
        reader.join(timeout=1.0)  # a grandchild may hold the pipe open
    followed.read(reports.line)
    if why is not None:
        return TrialResult(status=why[0], reason=why[1], values=reports.last)
    return _ended(spec, process.returncode, reports, folder)


def _lead_a_group() -> None:
    """Lead a process group, which ends as a whole, and end when the worker does."""
    os.setpgid(0, 0)
    if _LIBC is not None:
        _LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _load_libc() -> Any:
    if sys.platform != "linux":
        return None
    import ctypes

    return ctypes.CDLL(None)


_LIBC = _load_libc()


def _read_output(process: subprocess.Popen[bytes], log: Path, reports: Reports, ended: threading.Event) -> None:
    assert process.stdout is not None
    with process.stdout, log.open("ab") as file:
        for raw in process.stdout:
            file.write(raw)
            file.flush()
            with suppress(ValueError):  # the trial's file is closed: a line that came too late
                reports.line(raw.decode("utf-8", "replace"))
    ended.set()


def _watch(
    process: subprocess.Popen[bytes],
    spec: TrialSpec,
    folder: Path,
    reports: Reports,
    followed: FollowedFiles,
    ended: threading.Event,
) -> tuple[str, str] | None:
    """Wait for the end; returns (status, reason) when it was ended from here."""
    deadline = None if spec.timeout_s is None else time.monotonic() + spec.timeout_s
    while True:
        finished = ended.wait(_TICK_S)
        followed.read(reports.line)
        if finished:
            # Its output is closed; what is left of it is the end itself, or a daemon that goes on silently.
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
        if process.poll() is not None:
            return None
        if deadline is not None and time.monotonic() > deadline:
            return "timeout", f"ran longer than {spec.timeout_s:g} s"
        asked = asked_to_stop(folder)
        if asked is not None:
            return asked


def asked_to_stop(folder: Path) -> tuple[str, str] | None:
    """What the file ``stop`` asks for: (status, reason)."""
    try:
        status, _, reason = (folder / STOP).read_text().partition(" ")
    except FileNotFoundError:
        return None
    return status, reason


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        if process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_KILL_AFTER_S)


def _ended(spec: TrialSpec, code: int, reports: Reports, folder: Path) -> TrialResult:
    if code not in spec.accept:
        how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
        return TrialResult(status="failed", exit_code=code, reason=f"{how}: {_tail(folder)}", values=reports.last)
    if spec.result is not None:
        problem = _take_file(Path(spec.cwd) / spec.result, reports)
        if problem:
            return TrialResult(status="failed", exit_code=0, reason=problem, silent=True)
    return judge(spec, reports.last)


def judge(spec: TrialSpec, values: Mapping[str, float]) -> TrialResult:
    """Hold the rewards of a trial that ended well against those that the study wants."""
    missing = [name for name in spec.rewards if name not in values]
    if missing:
        where = spec.result or "its output"
        return TrialResult(status="failed", exit_code=0, reason=f"no '{missing[0]}' in {where}", silent=True)
    bad = [name for name in spec.rewards if not math.isfinite(values[name])]
    if bad:
        return TrialResult(status="failed", exit_code=0, reason=f"{bad[0]} is {values[bad[0]]}")
    return TrialResult(status="complete", exit_code=0, values={name: values[name] for name in spec.rewards})


def _take_file(path: Path, reports: Reports) -> str | None:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return f"expected the result file {path}, found nothing"
    except (OSError, ValueError) as error:
        return f"cannot read the result file {path}: {error}"
    if isinstance(content, Mapping):
        reports.take(content)
    return None


def _tail(folder: Path) -> str:
    """The last line that was printed: of a traceback, the error itself."""
    try:
        lines = (folder / LOG).read_text(errors="replace").split("\n")[-_TAIL_LINES:]
    except FileNotFoundError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:300] if said else "it printed nothing"


class TrialStopped(Exception):
    """Raised by ``Trial.report`` where the study has asked for an early end."""


class Trial:
    """What a Python objective gets."""

    def __init__(self, spec: TrialSpec, reports: Reports) -> None:
        self.number = spec.number
        self.params = dict(spec.values)
        self.seed = spec.seed
        self.folder = Path(spec.folder)
        self._spec = spec
        self._reports = reports

    def report(self, value: float | Mapping[str, float], step: int | None = None) -> None:
        """Tell an intermediate value.

        Raises:
            TrialStopped: the assessor has seen enough; let it pass.
        """
        values = dict(value) if isinstance(value, Mapping) else {self._spec.rewards[0]: float(value)}
        self._reports.take({**values, **({} if step is None else {"step": step})})
        asked = asked_to_stop(self.folder)
        if asked is not None:
            raise TrialStopped(*asked)


def run_function(function: Callable[[Trial], Any], spec: TrialSpec) -> TrialResult:
    """Call a Python objective, and write ``result.json``; what it raises is a failed trial."""
    folder = Path(spec.folder)
    started = time.monotonic()
    reports = Reports(spec)
    try:
        value = function(Trial(spec, reports))
        values = value if isinstance(value, Mapping) else {spec.rewards[0]: value}
        result = judge(spec, {name: float(item) for name, item in values.items() if item is not None})
    except TrialStopped as end:
        result = TrialResult(status=end.args[0], reason=end.args[1], values=reports.last)
    except Exception as error:
        result = TrialResult(status="failed", reason=f"{type(error).__name__}: {error}", values=reports.last)
    finally:
        reports.close()
    seconds = round(time.monotonic() - started, 3)
    return write_result(folder, TrialResult(**{**asdict(result), "seconds": seconds, "steps": reports.steps}))
