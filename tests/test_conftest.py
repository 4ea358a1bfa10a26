"""RAZORDEPLOY_REQUIRE: an engine that is missing ends the run instead of being skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _collect(require: str, blocked: str = "") -> subprocess.CompletedProcess[str]:
    script = (
        "import importlib.util as u, sys\n"
        "real = u.find_spec\n"
        f"u.find_spec = lambda name, package=None: None if name == {blocked!r} else real(name, package)\n"
        "import pytest\n"
        "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', 'tests/test_strict_json.py']))"
    )
    environment = {**os.environ, "RAZORDEPLOY_REQUIRE": require}
    words = [sys.executable, "-c", script]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_a_browser_that_is_missing_ends_the_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = _collect("chromium")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "RAZORDEPLOY_REQUIRE names 'chromium': no such program" in done.stderr


def test_what_is_there_is_accepted():
    assert _collect("academic,numpy").returncode == 0


@pytest.mark.parametrize(
    ("require", "blocked", "text"),
    [
        ("numpy,no_such_engine", "", "RAZORDEPLOY_REQUIRE names 'no_such_engine', which is not installed"),
        ("openvino", "openvino", "pip install 'razordeploy[openvino]'"),
    ],
)
def test_what_is_missing_ends_the_run(require, blocked, text):
    done = _collect(require, blocked)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert text in done.stderr
