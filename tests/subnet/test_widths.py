from __future__ import annotations

import pytest

from razordeploy.errors import ModelError
from razordeploy.subnet.widths import check_choice, make_divisible, ratio_to_number


def test_ratio_is_the_inverse_of_a_number():
    # int(100 * 0.29) is 28: a subnet file in ratios would lose a channel each time it is read.
    wrong = [
        (n, total) for total in range(1, 600) for n in range(1, total + 1) if ratio_to_number(n / total, total) != n
    ]
    assert wrong == []


def test_ratio_keeps_at_least_one_channel():
    assert ratio_to_number(0.01, 8) == 1


@pytest.mark.parametrize("choice", [0, -1, 65, 0.0, 1.01, -0.5, True, "half", None, float("nan")])
def test_choices_out_of_range_are_refused(choice):
    with pytest.raises(ModelError, match="unit x: expected"):
        check_choice(choice, 64, "unit x")


def test_one_is_a_channel_and_one_point_zero_is_all():
    assert check_choice(1, 64, "x") == 1
    assert check_choice(1.0, 64, "x") == 64


@pytest.mark.parametrize(
    ("value", "divisor", "expected"), [(35, 8, 32), (36, 8, 40), (11, 8, 16), (1, 8, 8), (64, 8, 64), (3, 1, 3)]
)
def test_make_divisible(value, divisor, expected):
    # By hand from MobileNetV3's rule: nearest multiple, never below 90 % of the value.
    assert make_divisible(value, divisor) == expected


def test_make_divisible_does_not_grow_a_layer():
    assert make_divisible(20, 8) == 24
    assert make_divisible(20, 8, max_value=20) == 20
