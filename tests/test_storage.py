import errno
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from razordeploy import storage
from razordeploy.artifact import Artifact, write_artifact
from razordeploy.errors import StorageError, UsageError
from razordeploy.storage import atomic_write, staged_directory

WRITER = """
import itertools, sys
from razordeploy import storage
from razordeploy.artifact import staged_directory, write_artifact
if sys.argv[2] == "two renames":
    storage._exchange = lambda first, second: False
for number in itertools.count():
    with staged_directory(sys.argv[1]) as staged:
        for part in "abc":
            (staged / part).write_text(f"{number} " * 2000)
        write_artifact(staged, kind="float", stage="s", files={p: p for p in "abc"}, params={"number": number})
    if number == 0:
        print("first", flush=True)
"""


def commit(target, text):
    with staged_directory(target) as staged:
        (staged / "model").write_text(text)
        write_artifact(staged, kind="float", stage="s", files={"model": "model"})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


@pytest.mark.parametrize("swap", ["one step", "two renames"])
def test_kill_at_any_point_leaves_a_complete_artifact(tmp_path, swap):
    target = tmp_path / "a"
    seed = random.Random(7)
    seen = set()
    for _ in range(12):
        child = subprocess.Popen([sys.executable, "-c", WRITER, target, swap], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(seed.uniform(0, 0.05))
        child.kill()
        child.wait()
        child.stdout.close()
        artifact = Artifact.load(target)
        artifact.verify()
        assert {target.joinpath(p).read_text().split()[0] for p in "abc"} == {str(artifact.params["number"])}
        seen.add(artifact.params["number"])
    assert len(seen) > 1, "no kill came after a replacement: the test has not tested it"
    commit(target, "last")
    assert names(tmp_path) == ["a"]


def test_a_crash_between_the_two_renames_gives_the_old_one_back(tmp_path):
    commit(tmp_path / "a", "old")
    (tmp_path / "a").rename(tmp_path / f".a.old-{dead_pid()}")
    Artifact.load(tmp_path / "a").verify()
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("swaps", [True, False])
def test_replaces_an_artifact(tmp_path, monkeypatch, swaps):
    if not swaps:
        monkeypatch.setattr(storage, "_exchange", lambda first, second: False)
    commit(tmp_path / "a", "old")
    commit(tmp_path / "a", "new")
    assert (tmp_path / "a" / "model").read_text() == "new"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_keeps_the_old_and_leaves_no_litter(tmp_path, error):
    commit(tmp_path / "a", "old")
    with pytest.raises(error), staged_directory(tmp_path / "a") as staged:
        (staged / "model").write_text("half")
        assert staged.name == f".a.tmp-{os.getpid()}"
        raise error
    assert (tmp_path / "a" / "model").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_failed_second_rename_puts_the_old_one_back(tmp_path, monkeypatch):
    commit(tmp_path / "a", "old")
    rename = Path.rename

    def fail(self, target):
        if ".tmp-" in self.name:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(storage, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt):
        commit(tmp_path / "a", "new")
    assert (tmp_path / "a" / "model").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_removes_the_temporaries_of_dead_processes_only(tmp_path):
    live = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stale = tmp_path / f".a.tmp-{dead_pid()}"
    earlier = tmp_path / f".a.tmp-{os.getpid()}"
    kept = [tmp_path / f".a.tmp-{live.pid}", tmp_path / f".b.tmp-{dead_pid()}"]
    for path in (stale, earlier, *kept):
        path.mkdir()
        (path / "half").write_text("x")
    commit(tmp_path / "a", "new")
    live.communicate(b"\n")
    assert names(tmp_path) == sorted(["a", *(path.name for path in kept)])


def test_two_threads_on_one_target_are_told(tmp_path):
    with (
        pytest.raises(StorageError, match="another thread"),
        staged_directory(tmp_path / "a"),
        staged_directory(tmp_path / "a"),
    ):
        pass
    assert names(tmp_path) == []


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    (tmp_path / "home" / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(UsageError, match="holds no razordeploy artifact"):
        commit(tmp_path / "home", "new")
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years"
    (tmp_path / "empty").mkdir()
    commit(tmp_path / "empty", "new")
    with pytest.raises(UsageError, match="found a file"):
        commit(tmp_path / "home" / "thesis.txt", "new")
    with pytest.raises(UsageError, match="found a file"):
        commit(tmp_path / "home" / "thesis.txt" / "below", "new")


def test_a_block_without_a_manifest_is_not_published(tmp_path):
    with pytest.raises(RuntimeError, match="write_artifact"), staged_directory(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_a_linked_target_is_written_where_it_points(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "disk", target_is_directory=True)
    commit(tmp_path / "a", "new")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "disk" / "model").read_text() == "new"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full; free some space"),
        (errno.EACCES, "no permission; change its permissions"),
        (errno.EROFS, "the file system is read-only; give a folder on another disk"),
    ],
)
def test_storage_errors_name_the_path_and_what_to_do(tmp_path, number, words):
    commit(tmp_path / "a", "old")
    with pytest.raises(StorageError, match=words) as caught, staged_directory(tmp_path / "a") as staged:
        raise OSError(number, os.strerror(number), str(staged / "model"))
    assert str(tmp_path) in str(caught.value)
    assert caught.value.exit_code == 5
    assert (tmp_path / "a" / "model").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_other_errors_of_the_block_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), staged_directory(tmp_path / "a"):
        (tmp_path / "missing").read_text()
    with pytest.raises(RuntimeError, match="from an engine"), staged_directory(tmp_path / "a"):
        raise RuntimeError("from an engine")


def test_a_full_disk_in_the_words_of_an_engine(tmp_path, monkeypatch):
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0}))
    with pytest.raises(StorageError, match="the disk is full"), staged_directory(tmp_path / "a"):
        raise RuntimeError("unexpected pos 576 vs 534")
    assert names(tmp_path) == []


def test_atomic_write_at_a_size_limit_keeps_the_old_file(tmp_path):
    path = tmp_path / "report.json"
    atomic_write(path, "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(StorageError, match=r"size limit; raise the limit"):
            atomic_write(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["report.json"]


def test_atomic_write_follows_the_umask_and_utf8(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "deep" / "f", "é")
    finally:
        os.umask(before)
    assert (tmp_path / "deep" / "f").read_bytes() == b"\xc3\xa9"
    assert (tmp_path / "deep" / "f").stat().st_mode & 0o777 == 0o640
