"""Files and folders that are, after any crash, either the old ones or complete new ones."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from razordeploy.errors import StorageError, UsageError

MANIFEST = "manifest.json"
FORMAT = "razordeploy-artifact"

_ADVICE = {
    errno.ENOSPC: ("cannot write", "the disk is full", "free some space or give a folder on another disk"),
    errno.EDQUOT: ("cannot write", "the disk quota is used up", "free some space or give a folder on another disk"),
    errno.EFBIG: ("cannot write", "the file would pass this process's size limit", "raise the limit (ulimit -f)"),
    errno.EACCES: ("cannot access", "no permission", "change its permissions or give another folder"),
    errno.EPERM: ("cannot access", "no permission", "change its permissions or give another folder"),
    errno.EROFS: ("cannot write", "the file system is read-only", "give a folder on another disk"),
}
_FULL_BYTES = 256 * 1024
"""Less free space than this, right after a failed write, means that the disk was full."""

_ACTIVE: set[Path] = set()
"""Temporaries of this process: its pid alone cannot tell them from those of a dead process with the same pid."""


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a missing permission and a read-only disk into one line that names the path.

    Raises:
        StorageError: an ``OSError`` of that kind left the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _ADVICE:
            raise
        cannot, what, hint = _ADVICE[error.errno]
        raise StorageError(f"{cannot} {error.filename or path}: {what}", hint=hint) from error


def make_folder(path: Path) -> None:
    """Make ``path`` and the folders above it.

    Raises:
        UsageError: a file is in the way.
        StorageError: no permission, disk full, read-only disk.
    """
    with storage_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            found = error.filename or path
            raise UsageError(f"expected a folder at {path}, found a file: {found}", hint="give another") from error


@contextmanager
def staged_directory(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary sibling of ``target`` that takes its place in one step when the block succeeds.

    When the block raises (an interrupt too), the temporary is removed and an existing target stays as it was. The
    block ends with ``write_artifact``; a target is only replaced when it is empty or itself an artifact, so that a
    mistyped folder is never lost.

    Raises:
        UsageError: the target is a file, or a folder that holds something else than an artifact.
        StorageError: disk full, no permission, read-only disk, or another thread is writing the same target.
    """
    target = Path(target).resolve()
    make_folder(target.parent)
    with storage_errors(target):
        _check_replaceable(target)
        with _temporary(target) as staged:
            staged.mkdir()
            with _full_disk_in_other_words(target):
                yield staged
            if not (staged / MANIFEST).is_file():
                raise RuntimeError(f"nothing was committed to {target}: the block has to end with write_artifact()")
            _sync_tree(staged)
            _publish(staged, target)


def atomic_write(path: str | os.PathLike[str], data: str | bytes) -> Path:
    """Write ``data`` (text as UTF-8) so that ``path`` holds the old content or all of the new one.

    Raises:
        StorageError: disk full, no permission, read-only disk.
    """
    path = Path(path).resolve()
    raw = data.encode() if isinstance(data, str) else data
    make_folder(path.parent)
    with storage_errors(path), _temporary(path) as temporary:
        with temporary.open("wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        _sync(path.parent)
    return path


def recover(target: Path) -> None:
    """Put back the old ``target`` when a crash fell between the two renames of a disk that cannot swap."""
    if target.exists():
        return
    for old, pid in _siblings(target, "old"):
        if _is_dead(old, pid):
            old.rename(target)
            return


def _check_replaceable(target: Path) -> None:
    recover(target)
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"expected a folder at {target}, found a file", hint="give another folder")
    manifest = target / MANIFEST
    ours = manifest.is_file() and FORMAT in manifest.read_text(errors="replace")
    if not ours and any(target.iterdir()):
        raise UsageError(
            f"{target} is not empty and holds no razordeploy artifact, so it is not replaced",
            hint="give another folder, or empty this one first",
        )


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    for tag in ("tmp", "old"):
        for stale, pid in _siblings(target, tag):
            if _is_dead(stale, pid):
                _remove(stale)
    temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    if temporary in _ACTIVE:
        raise StorageError(f"{target} is being written by another thread", hint="give each thread its own folder")
    _ACTIVE.add(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _ACTIVE.discard(temporary)


@contextmanager
def _full_disk_in_other_words(target: Path) -> Iterator[None]:
    # torch.save says "unexpected pos 576 vs 534" and openvino "basic_ios::clear: iostream error" on a full disk.
    try:
        yield
    except RuntimeError as error:
        if shutil.disk_usage(target.parent).free < _FULL_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target)) from error
        raise


def _siblings(target: Path, tag: str) -> list[tuple[Path, int]]:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.{tag}-(\d+)")
    found = ((path, pattern.fullmatch(path.name)) for path in target.parent.iterdir())
    return [(path, int(match[1])) for path, match in found if match]


def _is_dead(temporary: Path, pid: int) -> bool:
    return temporary not in _ACTIVE if pid == os.getpid() else not _pid_alive(pid)


def _pid_alive(pid: int) -> bool:
    # On Windows signal 0 is not a question: it would end the process.
    if sys.platform == "win32":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _publish(staged: Path, target: Path) -> None:
    if not target.exists():
        staged.rename(target)
    elif not _exchange(staged, target):
        old = target.with_name(f".{target.name}.old-{os.getpid()}")
        target.rename(old)
        try:
            staged.rename(target)
        except BaseException:
            old.rename(target)
            raise
        _remove(old)
    _sync(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two paths in one step; False where the system or the file system cannot."""
    if sys.platform == "win32":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        at_fdcwd, rename_exchange = -100, 2
        code = libc.renameat2(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), rename_exchange)
    elif hasattr(libc, "renamex_np"):
        rename_swap = 2
        code = libc.renamex_np(os.fsencode(first), os.fsencode(second), rename_swap)
    else:
        return False
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    if path.is_symlink() or not (path.is_file() or (path.is_dir() and os.name == "posix")):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
