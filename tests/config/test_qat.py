"""The ``qat`` section."""

from __future__ import annotations

import pytest

from razordeploy.config.qat import QATConfig
from razordeploy.errors import RecipeError


def test_defaults_are_those_of_an_empty_section():
    assert QATConfig.parse({}, "r.py") == QATConfig()


@pytest.mark.parametrize(
    ("given", "limit"),
    [({}, 1.0), ({"freeze_bn_begin": 3}, None), ({"clip_grad": 0}, None), ({"clip_grad": 2, "freeze_bn_begin": -1}, 2)],
    ids=str,
)
def test_steps_are_bounded_where_frozen_norms_do_not_bound_them(given, limit):
    assert QATConfig.parse(given, "r.py").max_norm == limit


@pytest.mark.parametrize(
    ("given", "distill"),
    [
        (None, None),
        (False, None),
        (True, {"type": "KLDivergence"}),
        ("DKDLoss", {"type": "DKDLoss"}),
        ({"tau": 2.0}, {"type": "KLDivergence", "tau": 2.0}),
    ],
    ids=str,
)
def test_a_teacher_is_one_word_or_a_loss(given, distill):
    assert QATConfig.parse({"distill": given}, "r.py").distill == distill


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"freeze_bn": 1}, "r.py: unknown key 'freeze_bn' in 'qat'; did you mean 'freeze_bn_begin'?"),
        ({"freeze_bn_begin": -2}, "an integer of at least -1 for 'qat.freeze_bn_begin', got int -2"),
        ({"distill": 3}, "True, the name of a loss, or dict(type='KLDivergence', ...) for 'qat.distill'"),
        ({"optimizer": 3}, "a name or dict(type='SGD', ...) for 'qat.optimizer', got int 3"),
        ({"samples": 0}, "an integer of at least 1 for 'qat.samples'"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said(given, text):
    with pytest.raises(RecipeError) as caught:
        QATConfig.parse(given, "r.py")
    assert text in str(caught.value)
