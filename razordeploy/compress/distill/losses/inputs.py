"""Checks of what a loss is given, with the connector that would make it fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from razordeploy.errors import ModelError


def check_same_shape(student: Tensor, teacher: Tensor, loss: str) -> None:
    """Refuse two tensors of different shape: broadcasting would give a number that means nothing.

    Raises:
        ModelError: with the connector that would adapt the student.
    """
    if student.shape == teacher.shape:
        return
    raise ModelError(
        f"{loss}: expected features of one shape, got student {tuple(student.shape)} and teacher "
        f"{tuple(teacher.shape)}",
        hint=_which_connector(student, teacher),
    )


def _which_connector(student: Tensor, teacher: Tensor) -> str:
    s, t = tuple(student.shape), tuple(teacher.shape)
    if len(s) != len(t) or s[0] != t[0]:
        return "record layers whose outputs have the same axes and batch"
    if len(s) == 2:
        return (
            "put a connector on the student: dict(type='TorchNNConnector', module_name='Linear', "
            f"module_args=dict(in_features={s[1]}, out_features={t[1]}))"
        )
    if len(s) == 4 and s[1] != t[1]:
        more = "" if s[2:] == t[2:] else f" (and the sizes {s[2:]} and {t[2:]} differ: give it a stride)"
        return (
            "put a connector on the student: dict(type='ConvModuleConnector', "
            f"in_channel={s[1]}, out_channel={t[1]}){more}"
        )
    if len(s) == 4:
        return (
            "put a connector on the student: dict(type='TorchFunctionalConnector', function_name='interpolate', "
            f"func_args=dict(size={t[2:]}))"
        )
    return "record layers whose outputs have the same shape"


def class_indices(labels: Tensor | Sequence[object], classes: int, loss: str) -> Tensor:
    """Labels as int64 (N,): indices as they are, one-hot scores (N, classes) by their class.

    Raises:
        ModelError: soft scores (mixup, CutMix), which name no single class, or labels outside ``0 .. classes - 1``.
    """
    scores = _as_labels(labels, loss)
    if scores.ndim == 2 and scores.shape[1] == classes and classes > 1:
        hard = scores.argmax(1)
        if not torch.equal(scores, torch.nn.functional.one_hot(hard, classes).to(scores.dtype)):
            raise ModelError(
                f"{loss}: expected one class per sample, got soft labels",
                hint="it is not defined for mixed images: leave out Mixup and CutMix",
            )
        return hard
    indices = scores.reshape(-1)
    if indices.is_floating_point() or indices.numel() == 0:
        raise ModelError(f"{loss}: expected labels (N,) as class indices, got {scores.dtype} {tuple(scores.shape)}")
    return indices.long()


def class_scores(labels: Tensor | Sequence[object], like: Tensor, loss: str) -> Tensor:
    """Labels as probabilities in the shape and type of the logits ``like`` (N, classes).

    Raises:
        ModelError: they are neither class indices (N,) nor scores (N, classes).
    """
    found = _as_labels(labels, loss)
    if found.shape == like.shape:
        return found.to(like.dtype)
    if found.is_floating_point() or found.numel() != len(like):
        raise ModelError(f"{loss}: expected labels {(len(like),)} or {tuple(like.shape)}, got {tuple(found.shape)}")
    return torch.nn.functional.one_hot(found.reshape(-1).long(), like.shape[1]).to(like.dtype)


def _as_labels(labels: Tensor | Sequence[object], loss: str) -> Tensor:
    if isinstance(labels, Tensor):
        return labels
    found = [_of_sample(sample) for sample in labels]
    tensors = [x for x in found if isinstance(x, Tensor)]
    if not tensors or len(tensors) != len(found):
        raise ModelError(
            f"{loss}: expected labels as a tensor or as OpenMMLab data samples, got {type(labels).__name__}",
            hint="record them with dict(type='ModuleInputs', source='head.loss_module') and data_idx=1",
        )
    return torch.stack([x.reshape(-1)[0] if x.numel() == 1 else x for x in tensors])


def _of_sample(sample: object) -> object:
    if isinstance(sample, Tensor):
        return sample
    # mmpretrain keeps scores beside the label, mmcls keeps both in one LabelData.
    score = getattr(sample, "gt_score", None)
    label = getattr(sample, "gt_label", None)
    if isinstance(score, Tensor):
        return score
    if isinstance(label, Tensor):
        return label
    score = getattr(label, "score", None)
    return score if isinstance(score, Tensor) else getattr(label, "label", None)
