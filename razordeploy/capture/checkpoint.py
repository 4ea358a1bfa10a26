"""Weights from a file into a model, and one line that says what does not match."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from razordeploy.capture.key_hint import suggest_key_mapping
from razordeploy.capture.weights_file import read_weights_file
from razordeploy.errors import CheckpointError

_CONTAINERS = ("state_dict", "model_state_dict", "model", "module")
_SHOWN = 3
WRAPPED = "architecture."
"""What stands before the names of a model inside an algorithm."""
# Buffers that mmrazor's dynamic operations and mutables have beside the weights.
_MASK = re.compile(r"\.(mutable_attrs|mutable_channels?|mutable)\.|\.(mutable_)?mask$|\.mutable_mask")


@dataclass(frozen=True, kw_only=True)
class LoadResult:
    """What did not match when weights were loaded."""

    missing: tuple[str, ...] = ()
    """Keys of the model that the checkpoint does not have."""
    unexpected: tuple[str, ...] = ()
    """Keys of the checkpoint that the model does not have."""
    mismatched: tuple[str, ...] = ()
    """Keys of both with different shapes; the model keeps its own values."""


def load_state_dict(path: str | Path, *, trust: bool = False) -> dict[str, Tensor]:
    """Read the weights in a ``.pth`` or ``.safetensors`` file, or those in a training checkpoint, onto the CPU.

    Args:
        path: the file.
        trust: unpickle everything, which runs whatever code the file contains.

    Raises:
        CheckpointError: the file is missing, damaged, not safe to load, or holds no weights.
    """
    file = Path(path).expanduser()
    found = read_weights_file(file, trust=trust)
    while True:
        if isinstance(found, nn.Module):
            found = found.state_dict()
        if not isinstance(found, Mapping):
            raise CheckpointError(f"expected weights by name in '{file}', got {type(found).__name__}")
        inner = next((found[key] for key in _CONTAINERS if isinstance(found.get(key), Mapping | nn.Module)), None)
        if inner is None:
            return _tensors(found, file)
        found = inner


def load_into(
    model: nn.Module,
    path: str | Path,
    *,
    key_mapping: Mapping[str, str] | None = None,
    strict: bool = True,
    trust: bool = False,
) -> LoadResult:
    """Load the weights in ``path`` into ``model``, in place.

    Args:
        model: has some of the weights, or none, when an error is raised.
        path: as for ``load_state_dict``.
        key_mapping: regular expression -> replacement, applied in order to every key of the checkpoint.
        strict: every key and shape has to match. False loads what does, which has to be something.
        trust: as for ``load_state_dict``.

    Raises:
        CheckpointError: as for ``load_state_dict``, or the weights do not match the model.
    """
    found = load_state_dict(path, trust=trust)
    own = model.state_dict()
    state = of_architecture(renamed(found, key_mapping or {}, path), own)
    result = _load(model, state, path)
    differs = result.missing or result.unexpected or result.mismatched
    nothing = bool(own) and not any(key in own and own[key].shape == value.shape for key, value in state.items())
    if nothing or (strict and differs):
        shapes = [f"{key} {_dims(state[key])}, the model has {_dims(own[key])}" for key in result.mismatched]
        kinds = (("missing", result.missing), ("unexpected", result.unexpected), ("of another shape", shapes))
        text = ", ".join(f"{len(names)} {kind} ({_first(names)})" for kind, names in kinds if names)
        by_name = suggest_key_mapping(own, found) if result.missing or result.unexpected else None
        raise CheckpointError(
            f"'{path}' does not match the model: {text}",
            hint=by_name or "check that the recipe's model is the one that was trained",
        )
    return result


def of_architecture(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of ``architecture`` alone, where ``state`` is of an algorithm that holds the model as that.

    Checkpoints of distillation, pruning and quantization, here and in mmrazor, hold more: a teacher, connectors, one
    graph per mode.

    Args:
        state: what a file holds.
        own: the model's own.

    Raises:
        CheckpointError: what is kept of the channels is not all of them.
    """
    wanted = [key for key in own if not key.endswith("num_batches_tracked")]
    if not wanted or not all(f"{WRAPPED}{key}" in state for key in wanted) or any(key in state for key in wanted):
        return state
    return unwrapped(state, own)


def unwrapped(state: Mapping[str, Tensor], own: Container[str] = ()) -> dict[str, Tensor]:
    """The weights of ``architecture`` in the state of an algorithm, without the masks that pruning leaves among them.

    Args:
        state: of the algorithm.
        own: names that the model itself has, which are no masks of pruning.

    Raises:
        CheckpointError: a mask switches channels off, so that the weights alone are another model.
    """
    found: dict[str, Tensor] = OrderedDict()
    for name, value in state.items():
        if not name.startswith(WRAPPED):
            continue
        if name.removeprefix(WRAPPED) in own or _MASK.search(name) is None:
            found[name.removeprefix(WRAPPED)] = value
        elif not bool(value.bool().all()):
            raise CheckpointError(
                f"'{name}' of the checkpoint keeps {int(value.bool().sum())} of {value.numel()} channels: it is of a "
                "pruned model, and its weights as a whole are not what was trained",
                hint="razordeploy export CONFIG --checkpoint FILE --slice-weight writes the part that is kept",
            )
    return found


def _load(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> LoadResult:
    kept = OrderedDict(state)
    if hasattr(state, "_metadata"):
        # Modules convert old layouts of theirs by the version that is noted here.
        kept._metadata = state._metadata  # type: ignore[attr-defined]
    mismatched: list[str] = []
    while True:
        try:
            result = model.load_state_dict(kept, strict=False)
            break
        except RuntimeError as error:
            # Only torch knows which shapes differ: a module may convert its weights while it loads them.
            names = [name for name in re.findall(r"size mismatch for (\S+):", str(error)) if name in kept]
            if not names:
                reason = " ".join(str(error).splitlines()[1:]) or str(error)
                raise CheckpointError(f"'{path}' cannot be loaded into the model: {reason}") from error
            mismatched += names
            for name in names:
                del kept[name]
    # Checkpoints of torch before 0.4 have no num_batches_tracked, and inference does not read it.
    missing = [k for k in result.missing_keys if k not in mismatched and not k.endswith("num_batches_tracked")]
    return LoadResult(missing=tuple(missing), unexpected=tuple(result.unexpected_keys), mismatched=tuple(mismatched))


def _tensors(found: Mapping[object, object], path: Path) -> dict[str, Tensor]:
    tensors = OrderedDict(
        (key, value.detach()) for key, value in found.items() if isinstance(key, str) and isinstance(value, Tensor)
    )
    if not tensors:
        raise CheckpointError(
            f"'{path}' holds no weights at its top or under {', '.join(_CONTAINERS)}",
            hint=f"it has: {_first([str(key) for key in found]) or 'nothing'}",
        )
    if hasattr(found, "_metadata"):
        tensors._metadata = found._metadata  # type: ignore[attr-defined]
    return tensors


def renamed(state: dict[str, Tensor], key_mapping: Mapping[str, str], path: str | Path) -> dict[str, Tensor]:
    """``state`` with ``key_mapping`` (regular expression -> replacement) applied in order to every key.

    Raises:
        CheckpointError: two keys become one, or an expression does not work.
    """
    if not key_mapping:
        return state
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        new = _rename_key(key, key_mapping)
        if new in found:
            raise CheckpointError(f"key_mapping makes two keys of '{path}' into '{new}'", hint=f"one is '{key}'")
        found[new] = value
    return found


def _rename_key(key: str, key_mapping: Mapping[str, str]) -> str:
    try:
        for pattern, replacement in key_mapping.items():
            key = re.sub(pattern, replacement, key)
    except (re.error, IndexError) as error:
        raise CheckpointError(f"key_mapping {dict(key_mapping)} does not work: {error}") from error
    return key


def _first(names: Sequence[str]) -> str:
    rest = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _dims(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
