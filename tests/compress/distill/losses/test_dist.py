"""DIST against numpy's own correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.dist import DISTLoss
from tests.compress.distill.losses.draws import close, logits, softmax


def test_equals_the_official_number():
    # DIST_KD classification/lib/models/losses/dist_kd.py with beta=1, gamma=2, tau=4.
    loss = DISTLoss(inter_loss_weight=1, intra_loss_weight=2, tau=4)
    assert close(loss(*logits()), 45.30936904, 1e-9)


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_equals_the_definition(tau):
    y_s, y_t = (np.array([softmax(row, tau) for row in x.numpy()]) for x in logits())
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(y_s, y_t, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(y_s.T, y_t.T, strict=True)])
    loss = DISTLoss(inter_loss_weight=0.5, intra_loss_weight=2.0, tau=tau, loss_weight=3.0)
    # The official eps = 1e-8 in the denominators.
    assert close(loss(*logits()), 3.0 * tau**2 * (0.5 * inter + 2.0 * intra), 1e-5)


def test_a_batch_of_one_has_no_relation_across_samples():
    student, teacher = (x[:1].clone() for x in logits())
    student.requires_grad_()
    loss = DISTLoss(inter_loss_weight=0.0)(student, teacher)
    loss.backward()
    assert loss.item() == 1
    assert student.grad is not None and torch.equal(student.grad, torch.zeros_like(student))


@pytest.mark.parametrize("detach", [True, False])
def test_the_teachers_gradient_is_asked_for(detach):
    student, teacher = logits()
    teacher.requires_grad_()
    DISTLoss(teacher_detach=detach)(student.requires_grad_(), teacher).backward()
    assert (teacher.grad is None) == detach
