"""Ensembles of teachers: their mean as the label, a similarity per output, and a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.distill.losses.inputs import check_same_shape
from razordeploy.errors import ModelError, RecipeError, nearest


def _soft_ce(student: Tensor, teacher: Tensor) -> Tensor:
    return -(functional.log_softmax(student, dim=1) * functional.softmax(teacher, dim=1)).sum(1).mean()


def _l1_soft(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.l1_loss(functional.softmax(student, dim=1), functional.softmax(teacher, dim=1))


def _l2_soft(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.mse_loss(functional.softmax(student, dim=1), functional.softmax(teacher, dim=1))


SIMILARITIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": _soft_ce,
    "l1": functional.l1_loss,
    "l2": functional.mse_loss,
    "l1_soft": _l1_soft,
    "l2_soft": _l2_soft,
}


class MEALLoss(nn.Module):
    """Similarity of each output of the student with the teacher's.

    MEAL: Multi-Model Ensemble via Adversarial Learning (Shen et al. 2019, arXiv 1812.02425), equations 1 to 4.

    Args:
        similarity: ``ce`` (soft cross entropy), ``l1`` or ``l2`` of the logits, ``l1_soft`` or ``l2_soft`` of the
            probabilities; means over all values.
        gamma: weight of each output; None: 1 each.
        loss_weight: factor of the result.
    """

    def __init__(
        self, *, similarity: str = "ce", gamma: Sequence[float] | None = None, loss_weight: float = 1.0
    ) -> None:
        super().__init__()
        if similarity not in SIMILARITIES:
            raise RecipeError(f"MEALLoss: unknown similarity {similarity!r}", hint=nearest(similarity, SIMILARITIES))
        self.similarity = similarity
        self.gamma = gamma
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor | Sequence[Tensor], preds_T: Tensor | Sequence[Tensor]) -> Tensor:
        """Logits (N, C), or as many of them for each -> scalar."""
        pairs = _pairs(preds_S, preds_T, type(self).__name__)
        weights = _weights(self.gamma, len(pairs), f"{type(self).__name__}.gamma")
        terms = [w * SIMILARITIES[self.similarity](s, t) for w, (s, t) in zip(weights, pairs, strict=True)]
        return self.loss_weight * torch.stack(terms).sum()


class DiscriminatorLoss(nn.Module):
    """Binary cross entropy of a discriminator that says whose output it sees.

    MEAL (arXiv 1812.02425), equation 6; MEAL V2 (arXiv 2009.08453), equation 3, where the teacher's output is the
    mean of several. The official code trains student and discriminators together to tell the two apart;
    ``grad_reverse`` makes the student work against them, as the papers describe. The value is the same.

    Args:
        channels: classes (or features) of each output; an int for a single output.
        divisor: by which each of the two hidden layers is narrower; official 2 in MEAL, 8 in MEAL V2.
        eta: weight of each output; None: 1 each.
        grad_reverse: negate the gradient that reaches the student.
        loss_weight: factor of the result.
    """

    def __init__(
        self,
        *,
        channels: int | Sequence[int],
        divisor: int = 2,
        eta: Sequence[float] | None = None,
        grad_reverse: bool = False,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        sizes = [channels] if isinstance(channels, int) else list(channels)
        self.discriminators = nn.ModuleList(Discriminator(size, divisor) for size in sizes)
        self.eta = eta
        self.grad_reverse = grad_reverse
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor | Sequence[Tensor], preds_T: Tensor | Sequence[Tensor]) -> Tensor:
        """Outputs (N, C) of both -> scalar; one student output against several of teachers: against their mean."""
        name = type(self).__name__
        if isinstance(preds_S, Tensor) and not isinstance(preds_T, Tensor):
            preds_T = torch.stack(list(preds_T)).mean(0)
        pairs = _pairs(preds_S, preds_T, name)
        if len(pairs) != len(self.discriminators):
            raise ModelError(f"{name}: expected {len(self.discriminators)} outputs, got {len(pairs)}")
        weights = _weights(self.eta, len(pairs), f"{name}.eta")
        terms = []
        for weight, discriminator, (student, teacher) in zip(weights, self.discriminators, pairs, strict=True):
            shown = _Reverse.apply(student) if self.grad_reverse else student
            logits = discriminator(torch.cat([shown, teacher.detach()]))
            truth = torch.zeros_like(logits)
            truth[: len(student), 0] = 1
            truth[len(student) :, 1] = 1
            terms.append(weight * functional.binary_cross_entropy_with_logits(logits, truth))
        return self.loss_weight * torch.stack(terms).sum()


class Discriminator(nn.Module):
    """Three pointwise layers, each followed by a ReLU, the last one too, as in the official code."""

    def __init__(self, channels: int, divisor: int = 2) -> None:
        super().__init__()
        if divisor < 1 or channels // divisor**2 < 1:
            raise RecipeError(
                f"Discriminator: expected at least divisor^2 = {divisor**2} channels, got {channels}",
                hint="choose a smaller divisor",
            )
        hidden = channels // divisor
        self.conv1 = nn.Conv2d(channels, hidden, 1)
        self.conv2 = nn.Conv2d(hidden, hidden // divisor, 1)
        self.conv3 = nn.Conv2d(hidden // divisor, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) -> logits (N, 2) of student and teacher."""
        x = x[:, :, None, None]
        for layer in (self.conv1, self.conv2, self.conv3):
            x = functional.relu(layer(x))
        return x.flatten(1)


class MultiTeacherSoftCELoss(nn.Module):
    """Cross entropy of the student with the weighted mean of several teachers.

    MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks (Shen and Savvides 2020,
    arXiv 2009.08453), equations 1 and 2: uniform weights, probabilities, tau 1.

    Args:
        weights: of the teachers, in their order; scaled to sum 1. None: uniform.
        average: ``probabilities`` after the softmax, or ``logits`` before it.
        tau: temperature; the result is multiplied with its square.
        loss_weight: factor of the result.
    """

    def __init__(
        self,
        *,
        weights: Sequence[float] | None = None,
        average: str = "probabilities",
        tau: float = 1.0,
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if average not in ("probabilities", "logits"):
            raise RecipeError(f"{type(self).__name__}: expected average 'probabilities' or 'logits', got {average!r}")
        if weights is not None and (not weights or min(weights) < 0 or sum(weights) <= 0):
            raise RecipeError(f"{type(self).__name__}: expected weights of 0 or more, got {list(weights)}")
        self.weights = weights
        self.average = average
        self.tau = tau
        self.loss_weight = loss_weight

    def forward(self, preds_S: Tensor, preds_T: Tensor | Sequence[Tensor]) -> Tensor:
        """Logits (N, C) of the student and of each teacher -> mean over N."""
        name = type(self).__name__
        teachers = [preds_T] if isinstance(preds_T, Tensor) else list(preds_T)
        weights = _weights(self.weights, len(teachers), f"{name}.weights")
        for teacher in teachers:
            check_same_shape(preds_S, teacher, name)
        share = torch.tensor([w / sum(weights) for w in weights], dtype=preds_S.dtype, device=preds_S.device)
        logits = torch.stack(teachers).detach() / self.tau
        if self.average == "logits":
            soft = functional.softmax(torch.einsum("t,tnc->nc", share, logits), dim=1)
        else:
            soft = torch.einsum("t,tnc->nc", share, functional.softmax(logits, dim=2))
        values = -(soft * functional.log_softmax(preds_S / self.tau, dim=1)).sum(1)
        return self.loss_weight * self.tau**2 * values.mean()


class _Reverse(torch.autograd.Function):
    """Identity whose gradient changes sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


def _pairs(
    student: Tensor | Sequence[Tensor], teacher: Tensor | Sequence[Tensor], loss: str
) -> list[tuple[Tensor, Tensor]]:
    students = [student] if isinstance(student, Tensor) else list(student)
    teachers = [teacher] if isinstance(teacher, Tensor) else list(teacher)
    if len(students) != len(teachers) or not students:
        raise ModelError(f"{loss}: expected as many outputs of both, got {len(students)} and {len(teachers)}")
    for s, t in zip(students, teachers, strict=True):
        check_same_shape(s, t, loss)
    return list(zip(students, teachers, strict=True))


def _weights(given: Sequence[float] | None, count: int, where: str) -> Sequence[float]:
    weights = [1.0] * count if given is None else given
    if len(weights) != count:
        raise ModelError(f"{where}: expected {count} weights, got {len(weights)}")
    return weights
