"""Decoupled KD: every reduction is the official value (the predecessor's mean and sum were N times it)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.structures import BaseDataElement, LabelData

from razordeploy.compress.distill.losses.dkd import DKDLoss
from razordeploy.compress.distill.losses.kl_divergence import KLDivergence
from razordeploy.errors import ModelError
from tests.compress.distill.losses.draws import LABELS, close, labels, logits, softmax


def by_definition(alpha: float, beta: float, tau: float) -> np.ndarray:
    """Equation 7 of the paper, for every sample."""
    values = []
    for s, t, y in zip(*(x.numpy() for x in logits()), LABELS, strict=True):
        p_s, p_t = softmax(s, tau), softmax(t, tau)
        target = p_t[y] * np.log(p_t[y] / p_s[y]) + (1 - p_t[y]) * np.log((1 - p_t[y]) / (1 - p_s[y]))
        q_s, q_t = np.delete(p_s, y) / (1 - p_s[y]), np.delete(p_t, y) / (1 - p_t[y])
        values.append(tau**2 * (alpha * target + beta * (q_t * np.log(q_t / q_s)).sum()))
    return np.array(values)


@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
def test_equals_the_official_number(reduction):
    # mdistiller distillers/DKD.py, dkd_loss(alpha=1, beta=8, temperature=4).
    loss = DKDLoss(alpha=1, beta=8, tau=4, reduction=reduction)
    assert close(loss(*logits(), labels()), 21.1053727665, 1e-10)


@pytest.mark.parametrize("reduction", ["none", "batchmean", "sum", "mean"])
def test_every_reduction_equals_the_definition(reduction):
    values = by_definition(0.7, 2.0, 3.0) * 1.5
    expected = {"none": values, "sum": values.sum()}.get(reduction, values.mean())
    loss = DKDLoss(alpha=0.7, beta=2.0, tau=3.0, reduction=reduction, loss_weight=1.5)
    assert close(loss(*logits(), labels()), expected)


def test_both_parts_with_the_teachers_own_weight_are_the_plain_divergence():
    # KD = TCKD + (1 - p_T) NCKD, equation 5.
    student, teacher = (x[:1] for x in logits())
    rest = 1 - softmax(teacher[0].numpy())[LABELS[0]]
    loss = DKDLoss(alpha=1, beta=float(rest), tau=1)
    torch.testing.assert_close(loss(student, teacher, labels()[:1]), KLDivergence()(student, teacher))


def test_a_certain_teacher_gives_no_infinity():
    student = torch.tensor([[0.0, 1.0, 2.0]], requires_grad=True)
    loss = DKDLoss(tau=1)(student, torch.tensor([[400.0, 0.0, 1.0]]), torch.tensor([0]))
    loss.backward()
    assert bool(loss.isfinite()) and student.grad is not None and bool(student.grad.isfinite().all())


def test_labels_in_every_form_they_come_in():
    expected = DKDLoss()(*logits(), labels())
    one_hot = torch.nn.functional.one_hot(labels(), 5).double()
    mmcls = [BaseDataElement(gt_label=LabelData(label=y[None])) for y in labels()]
    scores = [BaseDataElement(gt_label=LabelData(label=row.argmax()[None], score=row)) for row in one_hot]
    mmpretrain = [BaseDataElement(gt_label=y[None]) for y in labels()]
    for form in (labels().int(), one_hot, mmcls, scores, mmpretrain):
        torch.testing.assert_close(DKDLoss()(*logits(), form), expected)


def test_mixed_labels_are_refused():
    mixed = torch.full((6, 5), 0.2)
    with pytest.raises(ModelError, match="expected one class per sample, got soft labels; .* leave out Mixup"):
        DKDLoss()(*logits(), mixed)
    with pytest.raises(ModelError, match=r"record them with dict\(type='ModuleInputs'"):
        DKDLoss()(*logits(), [BaseDataElement()] * 6)
