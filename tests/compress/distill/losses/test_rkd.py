"""Relational losses with loops over pairs and triples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.rkd import AngleWiseRKD, DistanceWiseRKD
from razordeploy.errors import ModelError
from tests.compress.distill.losses.draws import Array, close, logits, tensor


def huber(difference: float) -> float:
    return 0.5 * difference**2 if abs(difference) < 1 else abs(difference) - 0.5


def distances(rows: Array) -> Array:
    found = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in rows] for a in rows])
    return found / found[found > 0].mean()


def cosines(rows: Array) -> Array:
    n = len(rows)
    found = np.zeros((n, n, n))
    for i in range(n):
        for j in range(n):
            for k in range(n):
                a, b = rows[j] - rows[i], rows[k] - rows[i]
                if a.any() and b.any():
                    found[i, j, k] = a @ b / np.sqrt((a @ a) * (b @ b))
    return found


def test_equal_the_official_numbers():
    # RKD metric/loss.py, RkdDistance and RKdAngle.
    assert close(DistanceWiseRKD(loss_weight=1)(*logits()), 0.108367631058, 1e-10)
    assert close(AngleWiseRKD(loss_weight=1)(*logits()), 0.150361865926, 1e-10)


@pytest.mark.parametrize(("loss", "relation"), [(DistanceWiseRKD, distances), (AngleWiseRKD, cosines)])
@pytest.mark.parametrize("unit", [False, True])
def test_equal_the_definitions(loss, relation, unit):
    student, teacher = tensor(1, 5, 3, 2), tensor(2, 5, 4, 1)
    rows = [x.flatten(1).numpy() for x in (student, teacher)]
    if unit:
        rows = [x / np.sqrt((x**2).sum(1, keepdims=True)) for x in rows]
    s, t = (relation(x) for x in rows)
    expected = np.mean([huber(d) for d in (s - t).ravel()])
    assert close(loss(loss_weight=3.0, with_l2_norm=unit)(student, teacher), 3.0 * expected)


def test_the_scale_of_a_feature_does_not_count():
    student, teacher = logits()
    for loss in (DistanceWiseRKD(), AngleWiseRKD()):
        torch.testing.assert_close(loss(7 * student, teacher), loss(student, teacher))
        assert loss(3 * teacher, teacher).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [DistanceWiseRKD(), AngleWiseRKD()], ids=["distance", "angle"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_batch_of_one_and_equal_samples_are_no_nan(loss, rows):
    student = torch.ones(rows, 4, requires_grad=True)
    found = loss(student, torch.arange(4.0 * rows).view(rows, 4))
    found.backward()
    assert bool(found.isfinite()) and student.grad is not None and bool(student.grad.isfinite().all())
    if rows == 1:
        assert found.item() == 0


def test_batches_that_differ():
    with pytest.raises(ModelError, match="got 6 and 5 samples"):
        AngleWiseRKD()(logits()[0], logits()[1][:5])
