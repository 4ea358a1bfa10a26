"""Weighted soft labels against equation 8."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.wsld import WSLD
from razordeploy.errors import ModelError
from tests.compress.distill.losses.draws import LABELS, close, labels, logits, softmax


def test_equals_the_official_number():
    # Weighted-Soft-Label-Distillation knowledge_distiller.py, WSLDistiller(T=2, alpha=2.5), without the hard loss.
    assert close(WSLD(tau=2, loss_weight=2.5)(*logits(), labels()), 12.1461265918, 1e-10)


@pytest.mark.parametrize("tau", [1.0, 2.0, 5.0])
def test_equals_the_definition(tau):
    values = []
    for s, t, y in zip(*(x.numpy() for x in logits()), LABELS, strict=True):
        ratio = np.log(softmax(s)[y]) / np.log(softmax(t)[y])
        values.append((1 - np.exp(-ratio)) * -(softmax(t, tau) * np.log(softmax(s, tau))).sum())
    assert close(WSLD(tau=tau)(*logits(), labels()), tau**2 * np.mean(values), 1e-6)


def test_the_weight_carries_no_gradient():
    student, teacher = logits()
    leaf = student.clone().requires_grad_()
    WSLD()(leaf, teacher, labels()).backward()
    gradient = np.zeros((6, 5))
    for i, (s, t, y) in enumerate(zip(student.numpy(), teacher.numpy(), LABELS, strict=True)):
        weight = 1 - np.exp(-np.log(softmax(s)[y]) / np.log(softmax(t)[y]))
        gradient[i] = weight * (softmax(s) - softmax(t)) / 6
    assert leaf.grad is not None and close(leaf.grad, gradient, 1e-6)


def test_soft_labels_are_probabilities():
    mixed = torch.nn.functional.one_hot(labels(), 5) * 0.6 + torch.nn.functional.one_hot(labels().flip(0), 5) * 0.4
    assert WSLD()(*logits(), mixed).isfinite()
    hard = torch.nn.functional.one_hot(labels(), 5)
    torch.testing.assert_close(WSLD()(*logits(), hard), WSLD()(*logits(), labels()))


def test_a_wrong_number_of_classes():
    with pytest.raises(ModelError, match="expected logits of 1000 classes, got 5"):
        WSLD(num_classes=1000)(*logits(), labels())
    with pytest.raises(ModelError, match=r"expected labels \(6,\) or \(6, 5\), got \(4,\)"):
        WSLD()(*logits(), labels()[:4])
