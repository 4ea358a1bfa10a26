"""mmdeploy reads a shared value that says success until the child's own code runs: a dead child must not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import functools, multiprocessing, os, sys
from children import count_dead_children_as_failed

def target_wrapper(target, level, flag, *args):
    if target == "late":
        flag.value = -1
        os._exit(3)
    if target == "dead":
        os._exit(3)

if __name__ == "__main__":
    if sys.argv[2] == "watched":
        count_dead_children_as_failed()
        count_dead_children_as_failed()
    context = multiprocessing.get_context("fork")
    flag = context.Value("d", 0, lock=False)
    process = context.Process(target=functools.partial(target_wrapper, sys.argv[1], 20, flag))
    process.start()
    process.join()
    print(flag.value)
"""


@pytest.mark.parametrize(
    ("end", "watched", "value"),
    [("well", "watched", 0.0), ("dead", "watched", -1.0), ("late", "watched", -1.0), ("dead", "as it is", 0.0)],
)
def test_flag(tmp_path, end, watched, value):
    (tmp_path / "script.py").write_text(SCRIPT)
    # Alone: importing the package around it would ask for mmdeploy.
    source = Path(__file__).parents[2] / "razordeploy" / "integrations" / "mmdeploy" / "children.py"
    (tmp_path / "children.py").write_text(source.read_text())
    done = subprocess.run([sys.executable, "script.py", end, watched], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == value
