"""L1 and L2 distances of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.distance import L1Loss, L2Loss
from razordeploy.errors import ModelError
from tests.compress.distill.losses.draws import close, features


@pytest.mark.parametrize("reduction", ["none", "batchmean", "sum", "mean"])
def test_l1_of_every_reduction(reduction):
    s, t = (x.numpy() for x in features())
    total = sum(abs(a - b) for a, b in zip(s.ravel(), t.ravel(), strict=True))
    expected = {"none": np.abs(s - t), "batchmean": total / 4, "sum": total, "mean": total / 360}[reduction]
    assert close(L1Loss(reduction=reduction, loss_weight=0.5)(*features()), 0.5 * np.asarray(expected))


@pytest.mark.parametrize(
    ("options", "divide", "root"),
    [({}, 4, False), ({"div_element": True}, 360, False), ({"dist": True}, 1, True)],
    ids=["batch", "element", "dist"],
)
@pytest.mark.parametrize("mult", [None, 1.0, 3.0])
def test_l2_of_every_option(options, divide, root, mult):
    total = 0.0
    for s, t in zip(*(x.numpy() for x in features()), strict=True):
        if mult is not None:
            s, t = mult * s / np.sqrt((s**2).sum()), mult * t / np.sqrt((t**2).sum())
        total += ((s - t) ** 2).sum()
    expected = np.sqrt(total) if root else total / divide
    loss = L2Loss(normalize=mult is not None, mult=mult or 1.0, loss_weight=10.0, **options)
    assert close(loss(*features()), 10.0 * expected)


def test_dist_has_a_gradient_where_both_agree():
    student, _ = features()
    leaf = student.clone().requires_grad_()
    L2Loss(normalize=False, dist=True)(leaf, student).backward()
    assert leaf.grad is not None and torch.equal(leaf.grad, torch.zeros_like(student))


def test_an_empty_feature_is_no_nan():
    loss = L2Loss()(torch.zeros(2, 3, requires_grad=True), torch.ones(2, 3))
    loss.backward()
    assert loss.item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("student", "teacher", "hint"),
    [
        ((2, 8, 4, 4), (2, 16, 4, 4), r"ConvModuleConnector', in_channel=8, out_channel=16\)$"),
        ((2, 8, 4, 4), (2, 16, 8, 8), r"in_channel=8, out_channel=16\) \(and the sizes \(4, 4\) and \(8, 8\) differ"),
        ((2, 8, 4, 4), (2, 8, 8, 8), r"'interpolate', func_args=dict\(size=\(8, 8\)\)"),
        ((2, 8), (2, 16), r"module_name='Linear'.*in_features=8, out_features=16"),
        ((2, 8), (2, 8, 1, 1), "record layers whose outputs have the same axes and batch"),
        ((1, 8), (2, 8), "the same axes and batch"),
        ((2, 7, 8), (2, 5, 8), "whose outputs have the same shape"),
    ],
)
@pytest.mark.parametrize("loss", [L1Loss(), L2Loss()], ids=["l1", "l2"])
def test_shapes_that_differ_name_the_connector(loss, student, teacher, hint):
    with pytest.raises(ModelError, match=hint):
        loss(torch.zeros(student), torch.zeros(teacher))
