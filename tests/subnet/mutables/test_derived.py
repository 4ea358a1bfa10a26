from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.channel import (
    OneShotMutableChannel,
    SequentialMutableChannel,
    SimpleMutableChannel,
)
from razordeploy.subnet.mutables.derived import DerivedMutable
from razordeploy.subnet.mutables.value import OneShotMutableValue


def _mask(text):
    return torch.tensor([c == "1" for c in text])


def test_numbers_add_multiply_and_divide():
    depth, ratio = OneShotMutableValue([1, 2, 4]), OneShotMutableValue([3.0, 3.5])
    derived = {
        "times": depth * 3,
        "times from the left": 3 * depth,
        "product": depth * ratio,
        "half": depth * 0.5,
        "plus": depth + 10,
        "sum": depth + ratio,
        "divided": depth // (2, 1),
    }
    depth.current_choice, ratio.current_choice = 4, 3.5
    values = {name: mutable.current_choice for name, mutable in derived.items()}
    assert values == {
        "times": 12,
        "times from the left": 12,
        "product": 14,
        "half": 2,
        "plus": 14,
        "sum": 7.5,
        "divided": 2,
    }
    depth.current_choice = 1
    assert derived["times"].current_choice == 3
    assert derived["plus"].choices == [11, 12, 14]
    assert depth.current_choice == 1


def test_division_makes_divisible():
    channel = SequentialMutableChannel(64)
    derived = channel // 2
    assert (derived.current_choice, derived.num_channels) == (32, 64 // 2)
    channel.current_choice = 40
    # 40 / 2 = 20 -> 24 by multiples of 8; MobileNetV3's rule rounds halves up.
    assert derived.current_choice == 24
    assert torch.equal(derived.current_mask, torch.arange(32) < 24)
    assert (channel // (2, 4)).current_choice == 20


def test_division_follows_a_mutable_ratio():
    # mmrazor takes the ratio's choice at the time of the division, and keeps it.
    channel, ratio = SequentialMutableChannel(64), OneShotMutableValue([1, 2, 4])
    derived = channel // ratio
    assert derived.current_choice == 16
    ratio.current_choice = 2
    assert (derived.current_choice, derived.num_channels) == (32, 64)


def test_expand_repeats_each_channel_in_place():
    channel = SimpleMutableChannel(3)
    channel.current_choice = _mask("101")
    derived = channel * 2
    assert torch.equal(derived.current_mask, _mask("110011"))
    assert derived.current_choice == derived.activated_channels == 4
    assert torch.equal(channel.expand_mutable_channel(2, outer=2).current_mask, _mask("110011110011"))


def test_flattened_channels_keep_their_pixels():
    x = torch.randn(2, 5, 3, 2)
    channel = SimpleMutableChannel(5)
    channel.current_choice = _mask("01011")
    derived = channel * 6
    assert torch.equal(x.flatten(1)[:, derived.current_mask], x[:, channel.current_mask].flatten(1))


def test_concatenated_channels():
    first, second = SimpleMutableChannel(3), SequentialMutableChannel(4, choice_mode="ratio")
    derived = DerivedMutable.derive_concat_mutable([first, second])
    first.current_choice, second.current_choice = _mask("011"), 0.5
    assert torch.equal(derived.current_mask, _mask("0111100"))
    # In the mode 'ratio' the second one's choice is 0.5, which is no number of channels.
    assert derived.current_choice == 4
    with pytest.raises(ModelError, match="no mask"):
        DerivedMutable.derive_concat_mutable([first, OneShotMutableValue([1])])


def test_channels_times_a_mutable_ratio():
    channel, ratio = OneShotMutableChannel(8, [4, 8]), OneShotMutableValue([1, 2, 3])
    for derived in (channel * ratio, ratio * channel):
        channel.current_choice, ratio.current_choice = 4, 2
        assert torch.equal(derived.current_mask, torch.arange(24) < 8)
        assert derived.source_mutables == {channel, ratio}
    with pytest.raises(ModelError, match="channels cannot be multiplied by channels"):
        channel * channel  # noqa: B018
    with pytest.raises(ModelError, match="one after another"):
        channel + 1  # noqa: B018


def test_fractions_of_scattered_channels_are_refused():
    channel = SimpleMutableChannel(4)
    channel.current_choice = _mask("1010")
    with pytest.raises(ModelError, match="no prefix"):
        (channel * 0.5).current_mask  # noqa: B018


def test_derived_from_derived_resolves_to_the_sources():
    channel, ratio = SequentialMutableChannel(16), OneShotMutableValue([2, 4])
    derived = (channel * ratio) // (4, 1)
    assert derived.sources == (channel, ratio)
    channel.current_choice, ratio.current_choice = 8, 2
    assert derived.current_choice == 4
    assert torch.equal(derived.derive_same_mutable().current_mask, derived.current_mask)


class _Holder:
    derives = True

    def __init__(self, mutable):
        self.mutable = mutable

    def twice(self):
        return self.mutable.current_choice * 2


def _add(mutable, number):
    return mutable.current_choice + number


def test_sources_are_traced_through_what_functions_hold():
    value, other = OneShotMutableValue([1, 2]), OneShotMutableValue([3, 4])
    by_name = {"a": [value], "b": (other,)}
    for function, expected in (
        (lambda: value.current_choice + other.current_choice, (other, value)),
        (lambda: by_name["a"][0].current_choice, (value, other)),
        (lambda held=value: held.current_choice, (value,)),
        (functools.partial(_add, value, 3), (value,)),
        (_Holder(other).twice, (other,)),
        (lambda: (value * 2).current_choice, (value,)),
    ):
        assert DerivedMutable(function).sources == expected


def test_no_sources_or_wrong_ones_are_refused():
    value = OneShotMutableValue([1, 2])
    with pytest.raises(ModelError, match="needs sources"):
        DerivedMutable(lambda: 3)
    with pytest.raises(ModelError, match="not derived"):
        DerivedMutable(lambda: 3, source_mutables=[value * 2])
    assert DerivedMutable(lambda: 3, source_mutables=[value]).sources == (value,)


def test_only_the_sources_can_be_set():
    value = OneShotMutableValue([1, 2])
    derived = value * 2
    with pytest.raises(ModelError, match="follows its sources"):
        derived.current_choice = 2
    with pytest.raises(ModelError, match="through its sources"):
        derived.is_fixed = True
    assert not derived.is_fixed
    value.fix_chosen(1)
    assert derived.is_fixed
    with pytest.raises(ModelError, match="no mask"):
        derived.current_mask  # noqa: B018


@pytest.mark.parametrize(
    "derive",
    [
        lambda m: m * 3,
        lambda m: DerivedMutable(lambda: m.current_choice * 3, lambda: m.current_mask.repeat_interleave(3)),
        lambda m: DerivedMutable(lambda held=m: held.current_choice * 3),
    ],
    ids=["formula", "closure", "default argument"],
)
def test_deep_copies_follow_the_copied_source(derive):
    # A copied closure goes on looking at the original, so a sliced copy of a supernet had the supernet's widths.
    model = torch.nn.ModuleDict({"source": OneShotMutableChannel(4, [1, 2, 4])})
    model["derived"] = derive(model["source"])
    other = copy.deepcopy(model)
    other["source"].current_choice = 1
    assert (model["derived"].current_choice, other["derived"].current_choice) == (12, 3)
    assert other["derived"].sources == (other["source"],)


def test_formulas_can_be_pickled_and_closures_say_why_not():
    channel = OneShotMutableChannel(4, [1, 2, 4])
    derived = DerivedMutable.derive_concat_mutable([channel * 2, (channel * OneShotMutableValue([1, 2])) // (2, 1)])
    other = pickle.loads(pickle.dumps(derived))
    other.sources[0].current_choice = 1
    assert other.current_choice == 2 + 1
    assert derived.current_choice == 8 + 4
    with pytest.raises(ModelError, match="cannot be pickled; derive it with"):
        pickle.dumps(DerivedMutable(lambda: channel.current_choice))
