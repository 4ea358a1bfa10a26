import errno
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from razordeploy.errors import StorageError, UsageError
from razordeploy.workdir import WorkDir

HOLDER = """
import sys
import tempfile
import time
from razordeploy.workdir import WorkDir
with WorkDir(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
CONTENDER = """
import sys, time
from razordeploy.errors import StorageError
from razordeploy.workdir import WorkDir
time.sleep(max(0, float(sys.argv[2]) - time.time()))
try:
    with WorkDir(sys.argv[1]):
        print("won", flush=True)
        sys.stdin.read()
except StorageError as error:
    print(f"lost {error}", flush=True)
    sys.exit(error.exit_code)
"""


def start(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_makes_the_folder_and_frees_it_again(tmp_path):
    for _ in range(2):
        with WorkDir(tmp_path / "a" / "b") as work:
            assert work.path.is_dir()


def test_a_live_holder_is_named_at_once(tmp_path):
    holder = start(HOLDER, tmp_path)
    holder.stdout.readline()
    began = time.monotonic()
    try:
        with pytest.raises(StorageError, match=rf"in use by process {holder.pid} on .+, started 20\d\d-") as caught:
            WorkDir(tmp_path).__enter__()
        assert caught.value.exit_code == 5
        assert time.monotonic() - began < 0.5
        # Losing must not have blanked the holder's line.
        with pytest.raises(StorageError, match=f"process {holder.pid} "):
            WorkDir(tmp_path).__enter__()
    finally:
        holder.communicate()
    with WorkDir(tmp_path):
        pass


def test_a_killed_holder_is_taken_over(tmp_path):
    holder = start(HOLDER, tmp_path)
    holder.stdout.readline()
    holder.kill()
    holder.communicate()
    assert str(holder.pid) in (tmp_path / ".lock").read_text()
    with WorkDir(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_two_started_together_have_one_winner(tmp_path):
    for attempt in range(4):
        at = time.time() + 0.4
        pair = [start(CONTENDER, tmp_path / str(attempt), at) for _ in range(2)]
        first = sorted(child.stdout.readline().split()[0] for child in pair)
        for child in pair:
            child.communicate()
        assert first == ["lost", "won"]
        assert sorted(child.returncode for child in pair) == [0, 5]


def test_workers_that_outlive_a_dead_holder_do_not_block(tmp_path):
    forking = "import os\n" + HOLDER.replace('    print("held"', '    if os.fork(): os._exit(0)\n    print("held"')
    holder = start(forking, tmp_path)
    holder.stdout.readline()
    holder.wait()
    try:
        with WorkDir(tmp_path):
            pass
    finally:
        holder.communicate()


def test_an_exception_in_the_run_frees_the_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), WorkDir(tmp_path):
        raise KeyboardInterrupt
    with WorkDir(tmp_path):
        pass


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "f").write_text("")
    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(UsageError, match="expected a folder at"):
            WorkDir(path).__enter__()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become a user without permission")
def test_a_folder_of_somebody_else():
    code = CONTENDER.replace("time.sleep(", "import filelock, os; os.setuid(65534); (", 1)
    # Not tmp_path: pytest keeps the folders above it closed to other users.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", code, folder, "0"], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 5, done.stderr
        assert done.stdout.startswith(f"lost cannot access {folder}/.lock: no permission; ")


def test_a_read_only_disk(tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(StorageError, match="the file system is read-only"):
        WorkDir(tmp_path / "a").__enter__()


def test_a_full_disk_frees_the_lock(tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", fail)
        with pytest.raises(StorageError, match="the disk is full"):
            WorkDir(tmp_path).__enter__()
    with WorkDir(tmp_path):
        pass


def test_free_space(tmp_path):
    with WorkDir(tmp_path) as work:
        work.require_free(1)
        with pytest.raises(StorageError, match=r"needs 1000000000000\.0 MB of free disk, found \d+\.\d MB"):
            work.require_free(10**18)
