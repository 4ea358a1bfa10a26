"""mmrazor's checkpoints: the part of one that a plain model, or its deployed graph, takes."""

from __future__ import annotations

import io
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from razordeploy.capture.checkpoint import WRAPPED, load_state_dict
from razordeploy.errors import CheckpointError
from razordeploy.storage import atomic_write

# Kind -> (prefixes of what is kept, the first one found; what is added to the file's name).
KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "student": ((WRAPPED, "student."), "_student"),
    "quantized": (("qmodels.predict.",), "_deploy"),
}


def convert(checkpoint: Path, kind: str, out: Path | None = None, *, inplace: bool = False) -> Path:
    """Write the part of ``checkpoint`` that ``kind`` names, and return the file.

    Args:
        checkpoint: of mmrazor, 0.x (``student.``) or 1.x (``architecture.``).
        kind: ``student``: the trained model of a distillation, a pruning or a quantization-aware training;
            ``quantized``: the graph that is deployed, with its fake quants.
        out: default: beside ``checkpoint``.
        inplace: replace ``checkpoint``.

    Raises:
        CheckpointError: it cannot be read, or has no such part.
    """
    prefixes, suffix = KINDS[kind]
    state = load_state_dict(checkpoint)
    for prefix in prefixes:
        part: OrderedDict[str, Tensor] = OrderedDict(
            (key.removeprefix(prefix), value) for key, value in state.items() if key.startswith(prefix)
        )
        if part:
            break
    else:
        raise CheckpointError(
            f"expected keys that start with {' or '.join(map(repr, prefixes))} in '{checkpoint}', found "
            f"{', '.join(list(state)[:3])} ..."
        )
    target = checkpoint if inplace else out or checkpoint.with_name(f"{checkpoint.stem}{suffix}.pth")
    buffer = io.BytesIO()
    torch.save({"state_dict": part}, buffer)
    return atomic_write(target, buffer.getvalue())
