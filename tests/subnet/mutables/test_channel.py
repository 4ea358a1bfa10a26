from __future__ import annotations

import pytest
import torch

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.channel import (
    OneShotMutableChannel,
    SequentialMutableChannel,
    SimpleMutableChannel,
    SquentialMutableChannel,
)
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.mutables.index_dict import IndexDict
from razordeploy.subnet.mutables.value import OneShotMutableValue


def test_mask_of_a_simple_channel():
    channel = SimpleMutableChannel(4)
    assert channel.activated_channels == 4
    channel.current_choice = [1, 0, 1, 0]
    assert channel.current_mask.dtype == torch.bool
    assert channel.current_mask.tolist() == [True, False, True, False]
    assert channel.dump_chosen().chosen == [1, 0, 1, 0]
    for wrong, message in (([1, 1, 1], "4 channels"), ([0, 0, 0, 0], "keeps no channel")):
        with pytest.raises(ModelError, match=message):
            channel.current_choice = wrong
    assert channel.activated_channels == 2


def test_masks_add_no_key_to_a_state_dict():
    model = torch.nn.ModuleList([SimpleMutableChannel(4), SequentialMutableChannel(4), OneShotMutableChannel(4)])
    assert list(model.state_dict()) == []
    assert [name for name, _ in model.named_buffers()] == ["0.mask", "1.mask", "2.mask"]


def test_prefix_of_a_sequential_channel():
    channel = SequentialMutableChannel(10)
    channel.current_choice = 3
    assert channel.current_mask.tolist() == [True] * 3 + [False] * 7
    channel.current_choice = 0.59
    assert channel.current_choice == 5
    assert SquentialMutableChannel is SequentialMutableChannel


@pytest.mark.parametrize("total", [7, 64, 100, 1024])
def test_ratios_survive_the_round_trip(total):
    channel = SequentialMutableChannel(total, choice_mode="ratio")
    for number in range(1, total + 1):
        channel.current_choice = number
        channel.current_choice = channel.current_choice
        assert channel.activated_channels == number


@pytest.mark.parametrize("choice", [0, 11, 0.0, 1.5, True])
def test_widths_out_of_range_are_refused(choice):
    channel = SequentialMutableChannel(10)
    with pytest.raises(ModelError, match="expected"):
        channel.current_choice = choice


def test_candidates_are_sorted_numbers_or_ratios():
    channel = OneShotMutableChannel(12, [8, 4, 12])
    assert (channel.choices, channel.current_choice) == ([4, 8, 12], 12)
    assert OneShotMutableChannel(12).choices == [12]
    ratio = OneShotMutableChannel(12, [1.0, 0.25], choice_mode="ratio")
    assert (ratio.choices, ratio.min_choice, ratio.max_choice) == ([0.25, 1.0], 0.25, 1.0)
    ratio.current_choice = 0.25
    assert ratio.activated_channels == 3
    assert set(channel.sample_choice() for _ in range(60)) == {4, 8, 12}
    with pytest.raises(ModelError, match=r"expected one of \[4, 8, 12\]"):
        channel.current_choice = 5


@pytest.mark.parametrize(("choices", "mode"), [([0], "number"), ([13], "number"), ([0.5], "number"), ([1], "ratio")])
def test_bad_candidates_are_refused(choices, mode):
    with pytest.raises(ModelError, match="expected"):
        OneShotMutableChannel(12, choices, choice_mode=mode)


def test_ranges_are_ordered_and_do_not_overlap():
    ranges = IndexDict()
    ranges[(8, 12)] = "c"
    ranges[(0, 4)] = "a"
    ranges[(4, 8)] = "b"
    assert list(ranges.items()) == [((0, 4), "a"), ((4, 8), "b"), ((8, 12), "c")]
    ranges[(4, 8)] = "d"
    assert list(ranges.values()) == ["a", "d", "c"]
    for key, message in (
        ((3, 5), "overlaps"),
        ((0, 12), "overlaps"),
        ((4, 4), "start < end"),
        ((-2, 0), "start < end"),
    ):
        with pytest.raises(ModelError, match=message):
            ranges[key] = "x"


def test_container_puts_masks_together():
    first, second = SequentialMutableChannel(4), SimpleMutableChannel(3)
    container = MutableChannelContainer(12)
    assert container.current_mask.tolist() == [True] * 12
    container.register_mutable(second, 8, 11)
    container.register_mutable(first, 2, 6)
    first.current_choice, second.current_choice = 1, [0, 1, 0]
    assert "".join(str(int(kept)) for kept in container.current_mask) == "111000110101"
    assert container.activated_channels == 7
    assert container.sources == (first, second)
    assert not container.is_fixed
    first.fix_chosen()
    second.fix_chosen()
    assert container.is_fixed


def test_container_overlays_interleaved_channels():
    even, odd = SimpleMutableChannel(6), SimpleMutableChannel(6)
    container = MutableChannelContainer(6)
    container.register_mutable(even, 0, 6, overlay=True)
    container.register_mutable(odd, 0, 6, overlay=True)
    even.current_choice, odd.current_choice = [1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 1, 1]
    assert container.current_mask.tolist() == [True, False, False, True, True, True]


def test_container_refuses_what_does_not_fit():
    container = MutableChannelContainer(8)
    container.register_mutable(SequentialMutableChannel(4), 0, 4)
    for mutable, start, end, message in (
        (SequentialMutableChannel(4), 6, 10, r"within \(0, 8\)"),
        (SequentialMutableChannel(4), 4, 7, "needs a mask of 3"),
        (SequentialMutableChannel(4), 2, 6, "overlaps"),
        (OneShotMutableValue([1, 2]), 4, 8, "no mask"),
    ):
        with pytest.raises(ModelError, match=message):
            container.register_mutable(mutable, start, end)
    with pytest.raises(ModelError, match="follows the mutables in it"):
        container.current_choice = torch.ones(8)
