"""A file of weights, read without running what else is in it."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from razordeploy import lazy
from razordeploy.errors import CheckpointError, nearest

_AGAIN = "copy or download it again"
_TRUST = (
    "save model.state_dict() or safetensors instead, or add --trust-checkpoint if you know where the file comes from"
)


def read_weights_file(path: Path, *, trust: bool) -> object:
    """Everything in a ``.safetensors`` file or a file of ``torch.save``, on the CPU.

    Args:
        path: the file.
        trust: unpickle everything. Otherwise only tensors and plain containers are: the logs and random states in a
            training checkpoint become empty stand-ins, and any other global is refused.

    Raises:
        CheckpointError: the file is missing, damaged, something else, or not safe to load.
    """
    _check_path(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    _check_head(path)
    return _read_pickle(path, trust=trust)


class _Inert:
    """Takes the place of an object that weights do not need; keeps nothing and can do nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Allowing the real objects would not do: builtins.getattr alone reaches everything.
_STAND_INS: list[Any] = [
    (_Inert, name)
    for name in (
        "mmengine.logging.history_buffer.HistoryBuffer",
        "builtins.getattr",
        "argparse.Namespace",
        "numpy.ndarray",
        "numpy.dtype",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray.scalar",
    )
]


def _check_path(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"expected a checkpoint file, '{path}' is a folder", hint="name a file in it")
    if not path.exists():
        # Path() has already folded the two slashes of an address into one.
        if re.match(r"\w{2,}:/", str(path)):
            address = re.sub(r":/+", "://", str(path), count=1)
            raise CheckpointError(f"'{address}' is an address, and nothing is downloaded", hint="give a local file")
        beside = [p.name for p in path.parent.iterdir() if p.is_file()] if path.parent.is_dir() else []
        close = nearest(path.name, beside)
        raise CheckpointError(
            f"no checkpoint '{path}'", hint=close if close.startswith("did you mean") else "check the path"
        )
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be opened: {error.strerror}") from error
    if size == 0:
        raise CheckpointError(f"'{path}' is empty (0 bytes)", hint=_AGAIN)


def _check_head(path: Path) -> None:
    """Refuse what is something else than a checkpoint, by how it starts."""
    with path.open("rb") as file:
        head = file.read(256)
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"'{path}' is a git-lfs pointer, not the weights", hint="run 'git lfs pull'")
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        raise CheckpointError(f"'{path}' is a web page, not a checkpoint", hint="download the file itself")
    if not head.startswith((b"PK\x03\x04", b"\x80")):
        raise CheckpointError(
            f"expected a checkpoint of torch.save or a .safetensors file, '{path}' starts with {head[:8]!r}"
        )
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"'{path}' is truncated: its end is missing", hint=_AGAIN)


def _read_safetensors(path: Path) -> object:
    lazy.require("safetensors", extra="openvino")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"'{path}' is not a whole safetensors file: {error}", hint=_AGAIN) from error


def _read_pickle(path: Path, *, trust: bool) -> object:
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=not trust)
    except Exception as error:
        raise _one_line(error, path, trust=trust) from error


def _one_line(error: Exception, path: Path, *, trust: bool) -> CheckpointError:
    text = str(error)
    name = re.search(r"(?:Unsupported global: GLOBAL|load unsupported GLOBAL) (\S+)", text)
    if name and not trust:
        return CheckpointError(f"'{path}' holds more than weights: '{name[1]}', which could run code", hint=_TRUST)
    if "TorchScript" in text:
        return CheckpointError(f"'{path}' is a TorchScript program, not weights", hint="save model.state_dict()")
    if isinstance(error, EOFError) or "truncated" in text or "unexpected EOF" in text:
        return CheckpointError(f"'{path}' is truncated: its end is missing", hint=_AGAIN)
    if isinstance(error, pickle.UnpicklingError) and not trust:
        text = text.rpartition("WeightsUnpickler error:")[2]
    first = (text.strip().splitlines() or ["no message"])[0]
    return CheckpointError(f"'{path}' cannot be read: {type(error).__name__}: {first}", hint=_AGAIN)
