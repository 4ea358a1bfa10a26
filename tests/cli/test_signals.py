"""Ctrl-C and SIGTERM: what is kept, what is said, and that going on gives what an uninterrupted run gives."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from razordeploy.cli.signals import Signalled, raise_on_signals
from tests.cli.conftest import tree, wait_for

RUN = ("--backend", "openvino,onnxruntime", "--work-dir", "work", "--benchmark-seconds", "0")
# Every batch takes a moment, and says on stderr that it came.
SLOW_CALIBRATION = """
import sys, time
import razordeploy.quantization.calibrate as c
collect = c.collect
def slow(*args, on_batch, **kwargs):
    def told(so_far):
        print("batch", so_far.samples, file=sys.stderr, flush=True)
        time.sleep(0.3)
        on_batch(so_far)
    return collect(*args, on_batch=told, **kwargs)
c.collect = slow
"""
SLOW_EVALUATION = """
import sys, time
import razordeploy.validation as p
def slow(batch):
    print("evaluating", file=sys.stderr, flush=True)
    time.sleep(0.3)
    return set()
p.sample_digests = slow
"""


def signal_at(text: str, number: signal.Signals, times: int = 1):
    """Send ``number`` to the process as soon as it writes ``text``."""

    def started(pid: int, err: Path) -> None:
        wait_for(text, err)
        for i in range(times):
            os.kill(pid, number)
            time.sleep(0.05 if i + 1 < times else 0)

    return started


def engines(work: Path) -> dict[str, str]:
    """Hashes of every file of every engine, but what is measured anew each time."""
    names = [p for p in work.glob("*/*") if p.parent.name != "cache" and p.name != "manifest.json"]
    return {str(p.relative_to(work)): hashlib.sha256(p.read_bytes()).hexdigest() for p in names}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_in_calibration_and_on(cli, tiny, made, tmp_path, number, code):
    recipe = tiny()
    stopped = cli("ptq", recipe, *RUN, before=SLOW_CALIBRATION, started=signal_at("batch 32", number))
    assert stopped.code == code
    assert "Traceback" not in stopped.err
    assert "batch 64" not in stopped.err
    resume = f"razordeploy ptq {recipe} {shlex.join(RUN)}"
    assert stopped.err.splitlines()[-1] == f"interrupted: 32 calibration samples are kept; resume with: {resume}"
    assert [p.name for p in (tmp_path / "work").iterdir() if p.name != ".lock"] == ["cache"]

    went_on = cli(*shlex.split(resume)[1:], before=SLOW_CALIBRATION)
    assert went_on.code == 0, went_on.err
    assert "batch 32" not in went_on.err
    assert "batch 64" in went_on.err
    assert engines(tmp_path / "work") == engines(made / "work")
    assert not list((tmp_path / "work" / "cache").glob("*partial*"))


def test_in_evaluation(cli, tiny, earlier):
    had = tree(earlier)
    stopped = cli("ptq", tiny(), *RUN, before=SLOW_EVALUATION, started=signal_at("evaluating", signal.SIGINT))
    assert stopped.code == 130
    assert "interrupted: the calibration statistics are kept; resume with: razordeploy ptq" in stopped.err
    assert tree(earlier) == had


def test_twice_stops_at_once(cli, tiny, earlier):
    had = tree(earlier)
    slow = (
        "import razordeploy.pipeline as p, sys, time\ndef capture(*a, **k): print('here', file=sys.stderr, flush=True)"
    )
    slow += "; time.sleep(30)\np.capture = capture"
    begin = time.monotonic()
    stopped = cli("ptq", tiny(), *RUN, before=slow, started=signal_at("here", signal.SIGINT, times=2))
    assert time.monotonic() - begin < 15
    assert stopped.code == 130
    assert "stopping after this step; send the signal again to stop at once" in stopped.err
    assert "interrupted; resume with: razordeploy ptq" in stopped.err
    assert tree(earlier) == had


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_before_the_run_begins(cli, tiny, tmp_path, number, code, word):
    slow = "import razordeploy.cli.asked as p, sys, time\ndef load(*a): print('here', file=sys.stderr, flush=True)"
    slow += "; time.sleep(30)\np.load_recipe = load"
    stopped = cli("ptq", tiny(), *RUN, before=slow, started=signal_at("here", number))
    assert (stopped.code, stopped.error) == (code, word)
    assert not (tmp_path / "work").exists()


def test_reader_that_left(cli):
    # As in `razordeploy backends | head -0`: the pipe's other end is closed before anything is written.
    before = "import os\nr, w = os.pipe()\nos.close(r)\nos.dup2(w, 1)"
    gone = cli("backends", before=before)
    assert (gone.code, gone.err) == (141, "")


class _Finalized:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def _until_stopped(seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def test_a_finalizer_does_not_swallow_it():
    with pytest.raises(Signalled) as end, raise_on_signals():
        _Finalized()
        _until_stopped()
    assert end.value.exit_code == 130


def test_nor_does_a_library_that_catches_everything():
    with pytest.raises(Signalled), raise_on_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:
            raise RuntimeError("it stopped") from None
