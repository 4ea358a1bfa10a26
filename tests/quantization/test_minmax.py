"""Minimum and maximum: of everything, averaged over batches, averaged over samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.minmax import (
    MeanMinMaxObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)


@pytest.fixture
def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(n, 3, 4, 5, generator=generator) * (i + 1) for i, n in enumerate((4, 1, 3))]


def test_the_range_is_that_of_all_the_data(batches: list[torch.Tensor]) -> None:
    observer = MinMaxObserver()
    for x in batches:
        assert observer(x) is x
    data = torch.cat(batches).numpy()
    low, high = observer.range(QScheme())
    assert (low.item(), high.item()) == (data.min(), data.max())
    assert observer.count == 8


@pytest.mark.parametrize("axis", [1, 2, 3, -1])
def test_channels_have_ranges_of_their_own(batches: list[torch.Tensor], axis: int) -> None:
    observer = PerChannelMinMaxObserver(ch_axis=axis)
    for x in batches:
        observer(x)
    data = np.moveaxis(torch.cat(batches).numpy(), axis, 0)
    flat = data.reshape(data.shape[0], -1)
    low, high = observer.range(QScheme(ch_axis=axis))
    np.testing.assert_array_equal(low, flat.min(1))
    np.testing.assert_array_equal(high, flat.max(1))
    low, high = observer.range(QScheme())
    assert (low.item(), high.item()) == (data.min(), data.max())


def test_a_linear_weight_has_one_range_per_row() -> None:
    w = torch.arange(6.0).view(2, 3) - 2
    observer = PerChannelMinMaxObserver()
    observer(w)
    low, high = observer.range(QScheme(ch_axis=0))
    assert low.tolist() == [-2.0, 1.0]
    assert high.tolist() == [0.0, 3.0]


@pytest.mark.parametrize("constant", [0.01, 0.3, 1.0])
def test_the_moving_average_is_its_recurrence(batches: list[torch.Tensor], constant: float) -> None:
    observer = MovingAverageMinMaxObserver(averaging_constant=constant)
    channels = MovingAveragePerChannelMinMaxObserver(averaging_constant=constant, ch_axis=1)
    low = high = low_c = high_c = None
    for x in batches:
        observer(x)
        channels(x)
        a = x.numpy().astype(np.float64)
        now, now_c = (a.min(), a.max()), (a.min((0, 2, 3)), a.max((0, 2, 3)))
        low, high = (
            now
            if low is None
            else ((1 - constant) * low + constant * now[0], (1 - constant) * high + constant * now[1])
        )
        low_c, high_c = (
            now_c if low_c is None else (low_c + constant * (now_c[0] - low_c), high_c + constant * (now_c[1] - high_c))
        )
    np.testing.assert_allclose([v.item() for v in observer.range(QScheme())], [low, high], rtol=1e-6)
    np.testing.assert_allclose(channels.range(QScheme(ch_axis=1))[0], low_c, rtol=1e-6)
    np.testing.assert_allclose(channels.range(QScheme(ch_axis=1))[1], high_c, rtol=1e-6)


@pytest.mark.parametrize("constant", [0.0, -1.0, 1.5])
def test_an_averaging_constant_out_of_range_is_refused(constant: float) -> None:
    with pytest.raises(RecipeError, match="averaging_constant above 0 and up to 1"):
        MovingAverageMinMaxObserver(averaging_constant=constant)


@pytest.mark.parametrize("axis", [None, 1, 3])
def test_the_mean_is_over_samples_whatever_the_batches(batches: list[torch.Tensor], axis: int | None) -> None:
    observer, whole = MeanMinMaxObserver(ch_axis=axis), MeanMinMaxObserver(ch_axis=axis)
    for x in batches:
        observer(x)
    whole(torch.cat(batches))
    data = torch.cat(batches).double().numpy()
    others = tuple(i for i in (1, 2, 3) if i != axis)
    scheme = QScheme(ch_axis=axis)
    for part, expected in zip(
        observer.range(scheme), (data.min(others).mean(0), data.max(others).mean(0)), strict=True
    ):
        np.testing.assert_allclose(part, expected, rtol=1e-6)
    for a, b in zip(observer.range(scheme), whole.range(scheme), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_the_mean_takes_a_weight_as_one_sample() -> None:
    w = torch.tensor([[1.0, -2.0], [3.0, 5.0]])
    observer = MeanMinMaxObserver(ch_axis=0)
    observer(w)
    observer(w * 3)
    low, high = observer.range(QScheme(ch_axis=0))
    assert low.tolist() == [-4.0, 6.0]
    assert high.tolist() == [2.0, 10.0]
