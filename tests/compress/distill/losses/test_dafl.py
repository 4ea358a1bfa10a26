"""The generator's three terms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.dafl import ActivationLoss, InformationEntropyLoss, OnehotLikeLoss
from razordeploy.errors import RecipeError
from tests.compress.distill.losses.draws import close, features, logits, softmax


def test_equal_the_official_numbers():
    # Efficient-Computing DAFL-train.py: loss_one_hot, loss_information_entropy, loss_activation.
    assert close(OnehotLikeLoss()(logits()[1]), 0.344073967524, 1e-10)
    assert close(InformationEntropyLoss()(logits()[1]), -0.645403543278, 1e-10)
    assert close(ActivationLoss()(features()[1]), -0.786270152834, 1e-10)


def test_equal_the_definitions():
    rows = logits()[1].numpy()
    assert close(
        OnehotLikeLoss(loss_weight=0.05)(logits()[1]), 0.05 * np.mean([-np.log(softmax(r).max()) for r in rows])
    )
    mean = np.mean([softmax(r) for r in rows], axis=0)
    assert close(InformationEntropyLoss(loss_weight=5.0)(logits()[1]), 5.0 * (mean * np.log10(mean)).sum())
    values = features()[0].numpy()
    assert close(ActivationLoss(loss_weight=2.0)(features()[0]), -2.0 * np.abs(values).mean())
    assert close(ActivationLoss(norm_type="fro")(features()[0]), -np.sqrt((values**2).sum()))


def test_entropy_is_least_where_all_classes_are_there():
    balanced = torch.eye(5, dtype=torch.float64) * 50
    assert InformationEntropyLoss()(balanced).item() == pytest.approx(-np.log10(5), abs=1e-9)


def test_a_class_that_never_comes_is_no_nan():
    logits = torch.tensor([[500.0, 0.0], [500.0, 0.0]], requires_grad=True)
    loss = InformationEntropyLoss()(logits)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_an_unknown_norm():
    with pytest.raises(RecipeError, match="ActivationLoss: unknown norm_type 'absolute'; known: abs, fro"):
        ActivationLoss(norm_type="absolute")
