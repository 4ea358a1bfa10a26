"""What every loss of the table promises."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor

from razordeploy.compress.algorithm.build import build
from razordeploy.compress.distill.losses.table import LOSSES
from razordeploy.errors import RecipeError
from tests.compress.distill.losses.draws import features, labels, logits, tensor
from tests.compress.distill.losses.test_crd import IMAGES, NEGATIVES, OWN, WIDTH, embeddings
from tests.compress.distill.losses.test_feature_maps import fbkd_inputs

CRD = {"sample_n": IMAGES, "dim_out": WIDTH, "neg_num": NEGATIVES}
# Name -> (keywords, (student, teacher, further arguments); a generator's loss has no student).
CASES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "ABLoss": ({}, features()),
    "ATLoss": ({}, features()),
    "ActivationLoss": ({}, features()[1:]),
    "AngleWiseRKD": ({}, logits()),
    "CRDLoss": (CRD, (*embeddings(), OWN)),
    "ChannelWiseDivergence": ({}, features()),
    "CrossEntropyLoss": ({}, logits()),
    "DISTLoss": ({}, logits()),
    "DKDLoss": ({}, (*logits(), labels())),
    "DiscriminatorLoss": ({"channels": 5}, logits()),
    "DistanceWiseRKD": ({}, logits()),
    "FBKDLoss": ({}, fbkd_inputs()),
    "FTLoss": ({}, features()),
    "InformationEntropyLoss": ({}, logits()[1:]),
    "KDSoftCELoss": ({}, logits()),
    "KLDivergence": ({"tau": 2.0}, logits()),
    "L1Loss": ({}, features()),
    "L2Loss": ({}, features()),
    "MEALLoss": ({}, logits()),
    "MGDLoss": ({}, features()),
    "MultiTeacherSoftCELoss": ({}, logits()),
    "OFDLoss": ({}, features()),
    "OnehotLikeLoss": ({}, logits()[1:]),
    "PKDLoss": ({}, features()),
    "WSLD": ({}, (*logits(), labels())),
}
# Not zero where both agree: cross entropies, a boundary, a contrast, and what a generator is judged by.
NOT_A_DISTANCE = {
    *("ABLoss", "WSLD", "CrossEntropyLoss", "KDSoftCELoss", "MEALLoss", "MultiTeacherSoftCELoss", "CRDLoss"),
    *("DiscriminatorLoss", "ActivationLoss", "InformationEntropyLoss", "OnehotLikeLoss", "FBKDLoss"),
}
GENERATOR = {"ActivationLoss", "InformationEntropyLoss", "OnehotLikeLoss"}
# Predecessor's 22; ours are the rest.
OWN_NAMES = {"MEALLoss", "DiscriminatorLoss", "MultiTeacherSoftCELoss"}


def made(name: str, **more: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    return build({"type": f"mmrazor.{name}", **CASES[name][0], **more}, LOSSES, "loss")


def test_the_table_is_tried_whole():
    assert set(CASES) == set(LOSSES)
    assert len(set(LOSSES) - OWN_NAMES) == 22
    assert all(LOSSES[name].__name__ == name for name in LOSSES)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    loss = made(name).double()
    first, *rest = CASES[name][1]
    # The first batch sets CRD's normalising constants, which stay constants afterwards.
    loss(first, *rest)

    def value(*inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        # A memory bank changes with every call.
        return copy.deepcopy(loss)(inputs if isinstance(first, tuple) else inputs[0], *rest)

    leaves = [x.clone().requires_grad_() for x in (first if isinstance(first, tuple) else (first,))]
    assert torch.autograd.gradcheck(_detached_weight(name, value), leaves, atol=1e-6, rtol=1e-4, fast_mode=True)


def _detached_weight(name: str, value: Any) -> Any:
    """FBKD's mask and WSLD's weight count as constants: only what is left is a function to differentiate."""
    if name == "FBKDLoss":
        mask = CASES[name][1][0][0]
        return lambda *inputs: value(mask, *inputs[1:])
    if name == "WSLD":
        student, teacher, truth = CASES[name][1]
        from torch.nn import functional

        ratio = functional.cross_entropy(student, truth, reduction="none") / (
            functional.cross_entropy(teacher, truth, reduction="none") + 1e-7
        )
        weight = 1 - (-ratio).exp()
        soft = teacher.softmax(1)
        constant = lambda s: (weight * -(soft * s.log_softmax(1)).sum(1)).mean()  # noqa: E731
        torch.testing.assert_close(value(student), constant(student))
        leaf, other = student.clone().requires_grad_(), student.clone().requires_grad_()
        value(leaf).backward()
        constant(other).backward()
        torch.testing.assert_close(leaf.grad, other.grad)
        return constant
    return value


@pytest.mark.parametrize("name", sorted(set(LOSSES) - NOT_A_DISTANCE))
def test_zero_where_both_agree_and_positive_elsewhere(name):
    loss = made(name).double()
    student, teacher, *rest = CASES[name][1]
    same = teacher * 5 if name == "DISTLoss" else teacher
    assert loss(same.clone(), same, *rest).item() == pytest.approx(0, abs=1e-6)
    assert loss(student, teacher, *rest).item() > 1e-5


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"MGDLoss"}))
def test_the_weight_is_a_factor_of_either_sign(name):
    values = []
    for weight in (1.0, -2.5):
        torch.manual_seed(0)
        loss = build({"type": name, **CASES[name][0], "loss_weight": weight}, LOSSES, "loss").double()
        torch.manual_seed(1)
        values.append(loss(*CASES[name][1]).item())
    assert values[1] == pytest.approx(-2.5 * values[0], rel=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_single_precision_and_any_memory_layout(name):
    def single(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(single(y) for y in x)
        if not x.is_floating_point():
            return x
        x = x.float()
        return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.t().contiguous().t()

    loss = made(name)
    state = {key: value.clone() for key, value in loss.state_dict().items()}
    torch.manual_seed(1)
    expected = loss.double()(*CASES[name][1])
    loss.float().load_state_dict(state)
    torch.manual_seed(1)
    found = loss(*(single(x) for x in CASES[name][1]))
    assert found.dtype == torch.float32 and found.ndim == 0
    assert found.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_picklable(name):
    torch.manual_seed(1)
    found = pickle.loads(pickle.dumps(made(name).double()))(*CASES[name][1])
    torch.manual_seed(1)
    assert torch.equal(found, made(name).double()(*CASES[name][1]))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - GENERATOR - {"ATLoss", "AngleWiseRKD", "DistanceWiseRKD"}))
def test_nothing_is_broadcast(name):
    from razordeploy.errors import ModelError

    student, teacher, *rest = CASES[name][1]
    smaller = (*teacher[:-1], tensor(1, 4, 1, 3, 5)) if isinstance(teacher, tuple) else teacher[:, :1]
    with pytest.raises(ModelError, match="expected features of one shape"):
        made(name).double()(student, smaller, *rest)


def test_unknown_names_and_keywords_name_the_nearest():
    with pytest.raises(RecipeError, match="unknown loss 'KLDivergance'; did you mean 'KLDivergence'"):
        build({"type": "mmrazor.KLDivergance"}, LOSSES, "loss")
    with pytest.raises(RecipeError, match="loss KLDivergence has no keyword 'temperature'; known: loss_weight, "):
        build({"type": "KLDivergence", "temperature": 4}, LOSSES, "loss")
    with pytest.raises(RecipeError, match="loss DiscriminatorLoss needs channels"):
        build("DiscriminatorLoss", LOSSES, "loss")
    with pytest.raises(RecipeError, match="expected loss to be a dict with a 'type', got 3"):
        build(3, LOSSES, "loss")
