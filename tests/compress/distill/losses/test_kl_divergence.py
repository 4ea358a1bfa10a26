"""KL divergence with temperature against the sum of its definition, and against the official code's numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.kl_divergence import KLDivergence
from razordeploy.errors import ModelError, RecipeError
from tests.compress.distill.losses.draws import close, logits, softmax


def by_definition(tau: float) -> np.ndarray:
    """tau^2 p_T log(p_T / p_S), for every sample and class."""
    student, teacher = (x.numpy() for x in logits())
    rows = []
    for s, t in zip(student, teacher, strict=True):
        p_s, p_t = softmax(s, tau), softmax(t, tau)
        rows.append(tau**2 * p_t * np.log(p_t / p_s))
    return np.array(rows)


def test_equals_the_official_numbers():
    # RepDistiller distiller_zoo/KD.py with T = 4, and ZeroShotKnowledgeTransfer solver.py, divergence, T = 1.
    assert close(KLDivergence(tau=4)(*logits()), 3.83613234346, 1e-10)
    assert close(KLDivergence(reduction="mean")(*logits()), 0.512839470011, 1e-10)


@pytest.mark.parametrize("tau", [1.0, 4.0, 0.5])
@pytest.mark.parametrize("reduction", ["none", "batchmean", "sum", "mean"])
def test_every_reduction_equals_the_definition(tau, reduction):
    values = by_definition(tau)
    expected = {"none": values, "batchmean": values.sum() / 6, "sum": values.sum(), "mean": values.sum() / 30}
    assert close(KLDivergence(tau=tau, reduction=reduction, loss_weight=-2.0)(*logits()), -2.0 * expected[reduction])


def test_dense_logits_count_positions_as_values_of_a_sample():
    student, teacher = (x.reshape(2, 5, 3) for x in logits())
    first, second = (KLDivergence(reduction="sum")(student[i].t(), teacher[i].t()) for i in range(2))
    torch.testing.assert_close(KLDivergence()(student, teacher), (first + second) / 2)


def test_extreme_logits_stay_finite():
    student = torch.tensor([[0.0, 2e4]], requires_grad=True)
    loss = KLDivergence()(student, torch.tensor([[2e4, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad is not None and torch.equal(student.grad, torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("detach", [True, False])
def test_the_teachers_gradient_is_asked_for(detach):
    student, teacher = logits()
    teacher.requires_grad_()
    loss = KLDivergence(teacher_detach=detach)(student.requires_grad_(), teacher)
    loss.backward()
    assert student.grad is not None
    assert (teacher.grad is None) == detach


def test_wrong_use():
    with pytest.raises(RecipeError, match="unknown reduction 'batch_mean'; did you mean 'batchmean'"):
        KLDivergence(reduction="batch_mean")
    with pytest.raises(ModelError, match=r"student \(6, 5\) and teacher \(6, 1\).*in_features=5, out_features=1"):
        KLDivergence()(logits()[0], logits()[1][:, :1])
