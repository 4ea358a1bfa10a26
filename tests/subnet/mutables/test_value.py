from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.value import MutableValue, OneShotMutableValue


def test_default_is_the_first_or_the_largest():
    assert MutableValue([5, 3, 7]).current_choice == 5
    value = OneShotMutableValue([5, 3, 7])
    assert (value.choices, value.current_choice, value.min_choice, value.max_choice) == ([3, 5, 7], 7, 3, 7)
    assert OneShotMutableValue([5, 3, 7], default_value=3).current_choice == 3


def test_samples_are_uniform_and_plain():
    value = OneShotMutableValue([3, 5, 7])
    counts = Counter(value.sample_choice() for _ in range(3000))
    assert set(counts) == {3, 5, 7}
    # 5 standard deviations of a binomial of 3000 and 1/3.
    assert all(abs(count - 1000) < 130 for count in counts.values())
    assert type(value.sample_choice()) is int


def test_lists_are_choices():
    value = OneShotMutableValue([[192, 192], [224, 224]])
    value.current_choice = [192, 192]
    assert value.current_choice == (192, 192)
    assert value.dump_chosen().chosen == [192, 192]


def test_a_number_of_another_type_is_understood():
    value = OneShotMutableValue([3.0, 3.5, 4.0])
    value.fix_chosen(4)
    assert value.current_choice == 4.0
    assert type(value.current_choice) is float
    value = OneShotMutableValue([1, 2])
    value.current_choice = np.int64(2)
    assert type(value.current_choice) is int


@pytest.mark.parametrize("choice", [4, None, True, "3", 3.5])
def test_what_is_no_choice_is_refused(choice):
    value = OneShotMutableValue([1, 3])
    with pytest.raises(ModelError, match=r"expected one of \[1, 3\]"):
        value.current_choice = choice
    with pytest.raises(ModelError, match=r"expected one of \[1, 3\]"):
        value.fix_chosen(choice)
    assert value.current_choice == 3


def test_bad_lists_are_refused():
    with pytest.raises(ModelError, match="at least one value"):
        OneShotMutableValue([])
    with pytest.raises(ModelError, match="one type"):
        MutableValue([3, 3.5])


def test_fixing_twice_is_refused():
    value = OneShotMutableValue([1, 3])
    value.fix_chosen(1)
    with pytest.raises(ModelError, match="fixed already"):
        value.fix_chosen(3)
    with pytest.raises(ModelError, match="fixed already"):
        value.is_fixed = False


def test_copies_are_independent():
    value = OneShotMutableValue([1, 3], alias="depth")
    other = copy.deepcopy(value)
    other.current_choice = 1
    assert (value.current_choice, other.current_choice, other.alias) == (3, 1, "depth")
    assert list(value.state_dict()) == []
