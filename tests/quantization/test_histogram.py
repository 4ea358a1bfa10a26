"""The streaming histogram against numpy's over the whole data, and the ranges chosen from it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.histogram import HistogramObserver
from razordeploy.quantization.observers.percentile import PercentileObserver
from razordeploy.quantization.observers.search import exact_loss, histogram_loss
from razordeploy.quantization.observers.streaming_histogram import merge_bins
from razordeploy.quantization.qparams import compute_qparams, fake_quantize

AFFINE = QScheme()


def growing_batches(seed: int = 0) -> list[torch.Tensor]:
    """Batches of very different extent, the widest neither first nor last, with zeros as behind a ReLU."""
    generator = torch.Generator().manual_seed(seed)
    scales = (1e-3, 0.5, 40.0, 3.0)
    return [(torch.randn(5, 4, 7, 3, generator=generator) * s).clamp(min=-0.2 * s) for s in scales] + [
        torch.zeros(2, 4, 7, 3)
    ]


@pytest.mark.parametrize("bins", [16, 256, 2048])
def test_counts_are_those_of_numpy_on_the_whole_data(bins: int) -> None:
    observer = HistogramObserver(bins=bins)
    for x in growing_batches():
        observer(x)
    data = torch.cat(growing_batches()).double().numpy().ravel()
    top = 2.0 ** np.ceil(np.log2(np.abs(data).max()))
    expected, _ = np.histogram(data, bins=np.linspace(-top, top, 2 * bins + 1))
    np.testing.assert_array_equal(observer.counts[0], expected)
    assert observer.zeros.item() == (data == 0).sum()
    assert observer.counts.sum().item() == data.size


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_every_channel_has_the_histogram_of_its_values(axis: int) -> None:
    observer = HistogramObserver(bins=64, ch_axis=axis)
    batches = [x[:2] for x in growing_batches()]
    for x in batches:
        observer(x)
    for c in range(batches[0].shape[axis]):
        alone = HistogramObserver(bins=64)
        for x in batches:
            alone(x.select(axis, c).unsqueeze(0))
        assert torch.equal(observer.counts[c], alone.counts[0])
        assert observer.exponent[c] == alone.exponent[0]
        assert observer.zeros[c] == alone.zeros[0]


def test_channels_add_up_to_the_tensor_for_a_per_tensor_scheme() -> None:
    channels, tensor = HistogramObserver(ch_axis=1), HistogramObserver()
    for x in growing_batches():
        x = x * torch.tensor([1e-4, 1.0, 30.0, 0.0]).view(1, 4, 1, 1)
        channels(x)
        tensor(x)
    a, b = channels.histogram(AFFINE), tensor.histogram(AFFINE)
    assert torch.equal(a.counts, b.counts)
    assert torch.equal(a.edges, b.edges)
    assert torch.equal(a.zeros, b.zeros)


def test_order_and_batching_do_not_matter() -> None:
    batches = growing_batches()
    forward, backward, once = HistogramObserver(), HistogramObserver(), HistogramObserver()
    for x in batches:
        forward(x)
    for x in reversed(batches):
        backward(x)
    once(torch.cat(batches))
    for other in (backward, once):
        for name, buffer in forward.state_dict().items():
            assert torch.equal(buffer, other.state_dict()[name]), name


@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 1e-45, -1e-38, 3.4e38, -3.4e38])
def test_no_value_is_lost_at_the_ends_of_float32(value: float) -> None:
    observer = HistogramObserver(bins=32)
    observer(torch.full((3, 2), value))
    observer(torch.full((1, 2), value))
    assert observer.counts.sum().item() == 8
    low, high = observer.range(AFFINE)
    assert torch.isfinite(low)
    assert torch.isfinite(high)


def test_merging_bins_rounds_towards_minus_infinity() -> None:
    counts = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    assert merge_bins(counts, torch.tensor([1])).tolist() == [[0, 0, 3, 7, 11, 15, 0, 0]]
    assert merge_bins(counts, torch.tensor([9])).tolist() == [[0, 0, 0, 10, 26, 0, 0, 0]]


@pytest.mark.parametrize("bins", [0, 15, 1000])
def test_bins_must_be_a_power_of_two(bins: int) -> None:
    with pytest.raises(RecipeError, match="power of two"):
        HistogramObserver(bins=bins)


SCHEMES = [QScheme(bits=b, signed=s, symmetric=y) for b in (2, 4, 8) for s in (False, True) for y in (False, True)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_error_of_a_histogram_is_the_error_of_the_data(scheme: QScheme) -> None:
    torch.manual_seed(1)
    x = torch.randn(200_000) * 2 + 0.5
    observer = HistogramObserver()
    observer(x)
    rows = observer.histogram(scheme)
    for r in (0.2, 0.5, 0.9, 1.0):
        q = compute_qparams(rows.low[0] * r, rows.high[0] * r, scheme)
        grid = q.scale.view(1, 1), q.zero_point.view(1, 1)
        truth = (fake_quantize(x, q) - x).double().square().sum().item()
        assert histogram_loss(rows, scheme)(*grid).item() == pytest.approx(truth, rel=0.01)
        assert exact_loss(x.view(1, -1), scheme)(*grid).item() == pytest.approx(truth, rel=1e-6)


def test_a_mass_at_the_very_end_is_not_taken_for_clipped() -> None:
    # ReLU6: a third of the values are exactly 6.
    torch.manual_seed(0)
    x = (torch.randn(100_000) * 8).clamp(0, 6)
    observer = HistogramObserver()
    observer(x)
    assert observer.range(AFFINE)[1].item() == 6.0


def torch_range_error(x: torch.Tensor) -> float:
    from torch.ao.quantization.observer import HistogramObserver as TorchHistogramObserver

    theirs = TorchHistogramObserver()
    theirs(x)
    scale, zero_point = theirs.calculate_qparams()
    return (
        (torch.fake_quantize_per_tensor_affine(x, scale.item(), int(zero_point), 0, 255) - x)
        .double()
        .square()
        .mean()
        .item()
    )


@pytest.mark.parametrize("kind", ["gauss", "relu", "laplace", "outlier", "shifted"])
def test_the_range_is_no_worse_than_that_of_torch(kind: str) -> None:
    torch.manual_seed(3)
    x = torch.randn(60_000)
    x = {
        "gauss": x,
        "relu": x.relu(),
        "laplace": x.sign() * torch.empty_like(x).exponential_(),
        "outlier": torch.cat([x, torch.tensor([9.0, -3.0])]),
        "shifted": x * 0.5 - 2,
    }[kind]
    observer = HistogramObserver()
    observer(x)
    q = compute_qparams(*observer.range(AFFINE), AFFINE)
    ours = (fake_quantize(x, q) - x).double().square().mean().item()
    full = (fake_quantize(x, compute_qparams(x.min(), x.max(), AFFINE)) - x).double().square().mean().item()
    assert ours <= torch_range_error(x) * 1.02
    assert ours <= full * 1.001


def test_both_ends_are_free() -> None:
    # 3 bits: the long upper tail is worth cutting, the short lower one is not.
    torch.manual_seed(0)
    x = torch.cat([torch.randn(20_000).abs(), -torch.rand(20_000)])
    observer = HistogramObserver()
    observer(x)
    low, high = observer.range(QScheme(bits=3))
    assert high / x.max() < 0.75
    assert low / x.min() > 0.85


@pytest.mark.parametrize("percentile", [51.0, 90.0, 99.0, 99.99, 100.0])
@pytest.mark.parametrize("size", [40, 30_000])
def test_percentiles_are_those_of_numpy_within_a_bin(percentile: float, size: int) -> None:
    torch.manual_seed(2)
    observer = PercentileObserver(percentile=percentile)
    data = torch.randn(size, 3) * 3 + 1
    data[data < -1] = 0.0
    for x in data.split(max(1, size // 3)):
        observer(x)
    bin_width = 2.0 ** np.ceil(np.log2(data.abs().max().item())) / 2048
    low, high = observer.range(AFFINE)
    expected = np.percentile(data.double().numpy(), [100 - percentile, percentile])
    np.testing.assert_allclose([low.item(), high.item()], expected, rtol=0, atol=bin_width)


def test_percentiles_of_channels() -> None:
    torch.manual_seed(2)
    x = torch.randn(50, 4, 30) * torch.tensor([0.01, 1.0, 5.0, 0.0]).view(1, 4, 1)
    observer = PercentileObserver(percentile=97.0, ch_axis=1)
    observer(x)
    low, high = observer.range(QScheme(ch_axis=1))
    data = x.double().numpy()
    tolerance = 2.0 ** np.ceil(np.log2(np.abs(data).max((0, 2)) + 1e-30)) / 2048
    assert (np.abs(low.numpy() - np.percentile(data, 3.0, axis=(0, 2))) <= tolerance).all()
    assert (np.abs(high.numpy() - np.percentile(data, 97.0, axis=(0, 2))) <= tolerance).all()


@pytest.mark.parametrize("percentile", [50.0, 0.0, 100.1])
def test_a_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(RecipeError, match="percentile above 50 and up to 100"):
        PercentileObserver(percentile=percentile)
