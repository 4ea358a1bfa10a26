"""MEAL and MEAL V2: similarities, discriminators, ensembles."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.compress.distill.losses.cross_entropy import KDSoftCELoss
from razordeploy.compress.distill.losses.meal import DiscriminatorLoss, MEALLoss, MultiTeacherSoftCELoss
from razordeploy.errors import ModelError, RecipeError
from tests.compress.distill.losses.draws import array, close, features, logits, softmax, tensor


def discriminator(**options) -> DiscriminatorLoss:
    made = DiscriminatorLoss(channels=8, **options).double()
    layers = [made.discriminators[0].conv1, made.discriminators[0].conv2, made.discriminators[0].conv3]
    for seed, layer in zip((10, 12, 14), layers, strict=True):
        layer.weight.data.copy_(tensor(seed, *layer.weight.shape[:2])[:, :, None, None])
        layer.bias.data.copy_(tensor(seed + 1, *layer.bias.shape))
    return made


def test_equal_the_official_numbers():
    # MEAL loss.py: betweenLoss([1, .5], CrossEntropy), L1_soft, L2_soft.
    pooled = [x[:, :, 0, 0] for x in features()]
    pairs = zip(logits(), pooled, strict=True)
    assert close(MEALLoss(gamma=[1.0, 0.5])(*(list(pair) for pair in pairs)), 4.43380640749, 1e-10)
    assert close(MEALLoss(similarity="l1_soft")(*logits()), 0.228147048093, 1e-10)
    assert close(MEALLoss(similarity="l2_soft")(*logits()), 0.135377246615, 1e-10)
    # MEAL-V2 extensions/teacher_wrapper.py and kd_loss.py; loss.py, discriminatorLoss.
    student, teacher = logits()
    teachers = [teacher, tensor(8, 6, 5), tensor(9, 6, 5)]
    assert close(MultiTeacherSoftCELoss()(student, teachers), 3.4208332296, 1e-10)
    assert close(discriminator()(tensor(16, 6, 8), [tensor(17, 6, 8), tensor(18, 6, 8)]), 0.712676358636, 1e-10)


def test_similarities_equal_their_definitions():
    rows = list(zip(*(x.numpy() for x in logits()), strict=True))
    probabilities = [(softmax(s), softmax(t)) for s, t in rows]
    expected = {
        "ce": np.mean([-(t * np.log(s)).sum() for s, t in probabilities]),
        "l1": np.mean([np.abs(s - t).mean() for s, t in rows]),
        "l2": np.mean([((s - t) ** 2).mean() for s, t in rows]),
        "l1_soft": np.mean([np.abs(s - t).mean() for s, t in probabilities]),
        "l2_soft": np.mean([((s - t) ** 2).mean() for s, t in probabilities]),
    }
    for name, value in expected.items():
        assert close(MEALLoss(similarity=name, loss_weight=2.0)(*logits()), 2.0 * value)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.0]])
def test_weights_of_teachers(average, weights):
    teachers = [array(seed, 6, 5) for seed in (2, 8, 9)]
    share = np.array(weights or [1.0] * 3) / sum(weights or [1.0] * 3)
    values = []
    for i, s in enumerate(logits()[0].numpy()):
        if average == "logits":
            label = softmax(sum(w * t[i] for w, t in zip(share, teachers, strict=True)), 2.0)
        else:
            label = sum(w * softmax(t[i], 2.0) for w, t in zip(share, teachers, strict=True))
        values.append(-(label * np.log(softmax(s, 2.0))).sum())
    loss = MultiTeacherSoftCELoss(weights=weights, average=average, tau=2.0)
    assert close(loss(logits()[0], [torch.from_numpy(t) for t in teachers]), 4.0 * np.mean(values))


def test_one_teacher_alone_is_the_soft_cross_entropy():
    expected = KDSoftCELoss(tau=3.0)(*logits())
    torch.testing.assert_close(MultiTeacherSoftCELoss(tau=3.0)(logits()[0], logits()[1]), expected)


def test_reversed_the_student_works_against_the_discriminator():
    student, teacher = tensor(16, 6, 8), tensor(17, 6, 8).requires_grad_()
    gradients = []
    for reverse in (False, True):
        leaf = student.clone().requires_grad_()
        loss = discriminator(grad_reverse=reverse)
        loss(leaf, teacher).backward()
        gradients.append((leaf.grad, loss.discriminators[0].conv1.weight.grad))
    assert torch.equal(gradients[0][0], -gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1])
    assert gradients[0][0].abs().max() > 0 and teacher.grad is None


def test_a_discriminator_per_output():
    torch.manual_seed(0)
    loss = DiscriminatorLoss(channels=[8, 4], eta=[1.0, 0.5]).double()
    student, teacher = [tensor(1, 3, 8), tensor(2, 3, 4)], [tensor(3, 3, 8), tensor(4, 3, 4)]
    total = 0.0
    for weight, net, s, t in zip((1.0, 0.5), loss.discriminators, student, teacher, strict=True):
        x = torch.cat([s, t]).numpy()
        for layer in (net.conv1, net.conv2, net.conv3):
            w, b = layer.weight.detach().numpy()[:, :, 0, 0], layer.bias.detach().numpy()
            x = np.maximum(x @ w.T + b, 0)
        truth = np.array([[1, 0]] * 3 + [[0, 1]] * 3)
        total += weight * np.mean(np.log1p(np.exp(x)) - truth * x)
    assert close(loss(student, teacher), total)


def test_wrong_use():
    with pytest.raises(RecipeError, match="unknown similarity 'l1soft'; did you mean 'l1_soft'"):
        MEALLoss(similarity="l1soft")
    with pytest.raises(ModelError, match="expected 1 weights, got 2"):
        MEALLoss(gamma=[1.0, 2.0])(*logits())
    with pytest.raises(ModelError, match="as many outputs of both, got 1 and 2"):
        MEALLoss()(logits()[0], logits())
    with pytest.raises(RecipeError, match="weights of 0 or more"):
        MultiTeacherSoftCELoss(weights=[-1.0, 2.0])
    with pytest.raises(RecipeError, match=r"at least divisor\^2 = 64 channels, got 10"):
        DiscriminatorLoss(channels=10, divisor=8)
    with pytest.raises(ModelError, match="expected 2 outputs, got 1"):
        DiscriminatorLoss(channels=[8, 8])(torch.zeros(2, 8), torch.zeros(2, 8))
