"""Arrays, pairs and dicts of any origin to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from razordeploy.errors import DataError

EXPECTED = "a tensor, a numpy array, a tuple of them, (inputs, target), or a dict"
TARGET_KEYS = ("target", "targets", "label", "labels")


def as_tensor(value: Any, where: str) -> Tensor:
    """Turn a tensor, array or scalar into a detached tensor; float64 becomes float32, as models are float32.

    Raises:
        DataError: anything else; says what was expected, what was found and where.
    """
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "fiub":
            raise DataError(f"{where}: expected numbers, got a numpy array of dtype {value.dtype}")
        # Read-only and big-endian arrays (memory maps, image buffers) have no tensor view.
        value = torch.tensor(np.asarray(value, dtype=value.dtype.newbyteorder("=")))
    elif isinstance(value, (bool, int, float)):
        value = torch.tensor(value)
    if not isinstance(value, Tensor):
        raise DataError(f"{where}: expected {EXPECTED}, got {_kind(value)}")
    value = value.detach().cpu()
    return value.float() if value.dtype == torch.float64 else value


def is_target(value: Any) -> bool:
    """Tell whether the second of a pair is a label: an integer, a list of them, or an integer array of 0 or 1 axes."""
    if isinstance(value, bool):
        return False
    if isinstance(value, (int, np.integer)):
        return True
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in value)
    if isinstance(value, np.ndarray):
        return value.ndim <= 1 and value.dtype.kind in "iu"
    return isinstance(value, Tensor) and value.ndim <= 1 and not value.is_floating_point() and value.dtype != torch.bool


def split_item(
    item: Any, where: str, input_names: Sequence[str] | None = None
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Split what a loader yields into the inputs and the target.

    A pair whose second is a label (:func:`is_target`) is (inputs, target); any other tuple is several inputs. A dict
    is taken in its own order, or in that of ``input_names``; its key ``target`` or ``label`` is the target.
    """
    target: Any = None
    if isinstance(item, (tuple, list)) and len(item) == 2 and (item[1] is None or is_target(item[1])):
        item, target = item
    if isinstance(item, Mapping):
        values, named = _from_dict(item, where, input_names)
        target = named if target is None else target
    else:
        values = tuple(item) if isinstance(item, (tuple, list)) else (item,)
    if not values:
        raise DataError(f"{where}: expected {EXPECTED}, got an empty {type(item).__name__}")
    inputs = tuple(as_tensor(v, where) for v in values)
    if target is None:
        return inputs, None
    label = torch.tensor(target) if isinstance(target, (list, tuple)) else as_tensor(target, where)
    return inputs, label.long()


def _from_dict(item: Mapping[str, Any], where: str, names: Sequence[str] | None) -> tuple[tuple[Any, ...], Any]:
    if "inputs" in item:
        return _mm_inputs(item["inputs"], where), mm_labels(item.get("data_samples"))
    target = next((item[key] for key in TARGET_KEYS if key in item), None)
    found = {key: value for key, value in item.items() if key not in TARGET_KEYS}
    if names is not None:
        missing = [name for name in names if name not in found]
        if missing:
            raise DataError(f"{where}: expected the inputs {', '.join(names)}, got a dict with {', '.join(found)}")
        return tuple(found[name] for name in names), target
    return tuple(found.values()), target


def _mm_inputs(inputs: Any, where: str) -> tuple[Any, ...]:
    # pseudo_collate hands on a list of samples; a data preprocessor would have stacked it.
    if not isinstance(inputs, (list, tuple)):
        return (inputs,)
    tensors = [as_tensor(x, where) for x in inputs]
    shapes = sorted({tuple(x.shape) for x in tensors})
    if len(shapes) != 1:
        raise DataError(f"{where}: expected samples of one shape to stack, got {shapes or 'none'}")
    return (torch.stack(tensors),)


def mm_labels(samples: Any) -> Tensor | None:
    """Class indices (N,) from OpenMMLab data samples, or None where one has no single label.

    mmcls 1.0.0rc keeps them in ``gt_label.label``, mmpretrain in the tensor ``gt_label``.
    """
    labels = []
    for sample in samples if isinstance(samples, (list, tuple)) else []:
        label = getattr(sample, "gt_label", None)
        label = label if isinstance(label, Tensor) else getattr(label, "label", None)
        if not isinstance(label, Tensor) or label.numel() != 1:
            return None
        labels.append(int(label))
    return torch.tensor(labels) if labels else None


def mm_names(samples: Any) -> tuple[str, ...]:
    """Image paths from OpenMMLab data samples; empty where they carry none."""
    if not isinstance(samples, (list, tuple)):
        return ()
    names = tuple(str(getattr(sample, "img_path", "")) for sample in samples)
    return names if all(names) else ()


def _kind(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, bytes)) else ""
    return f"{type(value).__name__} {text[:60]}".strip()
