"""Soft and hard cross entropy with the teacher."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.cross_entropy import CrossEntropyLoss, KDSoftCELoss
from razordeploy.compress.distill.losses.kl_divergence import KLDivergence
from razordeploy.errors import ModelError
from tests.compress.distill.losses.draws import close, logits, softmax


def by_definition(tau: float) -> np.ndarray:
    """-sum over classes of p_T log p_S, for every sample."""
    student, teacher = (x.numpy() for x in logits())
    pairs = zip(student, teacher, strict=True)
    return np.array([-(softmax(t, tau) * np.log(softmax(s, tau))).sum() for s, t in pairs])


def test_equals_the_official_numbers():
    # pytorch-be-your-own-teacher train.py, kd_loss_function with T = 3; DeiT losses.py, hard distillation.
    assert close(KDSoftCELoss(tau=3)(*logits()), 16.7964090282, 1e-10)
    assert close(CrossEntropyLoss()(*logits()), 3.0839239596, 1e-10)


@pytest.mark.parametrize("square", [True, False])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_every_reduction_equals_the_definition(reduction, square):
    values = by_definition(3.0) * (9.0 if square else 1.0) * 0.3
    expected = {"none": values, "sum": values.sum(), "mean": values.mean()}[reduction]
    loss = KDSoftCELoss(tau=3.0, reduction=reduction, mult_tem_square=square, loss_weight=0.3)
    assert close(loss(*logits()), expected)


def test_sample_weights_and_their_factor():
    values, weight = by_definition(1.0), torch.tensor([0.0, 1.0, 2.0, 0.5, 1.0, 1.0], dtype=torch.float64)
    loss = KDSoftCELoss()
    assert close(loss(*logits(), weight=weight), (values * weight.numpy()).mean())
    assert close(loss(*logits(), weight=weight, avg_factor=2.5), (values * weight.numpy()).sum() / 2.5)
    assert close(loss(*logits(), reduction_override="sum"), values.sum())
    with pytest.raises(ModelError, match="avg_factor goes with the reduction 'mean', got 'sum'"):
        loss(*logits(), avg_factor=2.0, reduction_override="sum")


def test_the_gradient_reaches_the_student_and_is_that_of_the_divergence():
    student, teacher = logits()
    gradients = []
    for loss in (KDSoftCELoss(tau=2.0), KLDivergence(tau=2.0)):
        leaf = student.clone().requires_grad_()
        loss(leaf, teacher).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_the_least_soft_cross_entropy_is_the_teachers_entropy():
    _, teacher = logits()
    entropy = np.mean([-(softmax(t) * np.log(softmax(t))).sum() for t in teacher.numpy()])
    assert close(KDSoftCELoss()(teacher, teacher), entropy)
    assert KDSoftCELoss()(logits()[0], teacher) > entropy


def test_hard_labels_are_the_teachers_classes():
    student, teacher = logits()
    picked = [-np.log(softmax(s)[t.argmax()]) for s, t in zip(student.numpy(), teacher.numpy(), strict=True)]
    assert close(CrossEntropyLoss(loss_weight=0.5)(student, teacher), 0.5 * np.mean(picked))
