"""The divergence-optimal threshold against a second implementation with plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.entropy import EntropyObserver, best_threshold


def divergences(counts: list[float], levels: int) -> dict[int, float]:
    """KL(P, Q) for every threshold, after the slides of Migacz (GTC 2017), one bin at a time in float64."""
    result = {}
    for i in range(levels, len(counts) + 1):
        p = [float(c) for c in counts[:i]]
        outliers = sum(counts[i:])
        if outliers > 0 and counts[i - 1] == 0:
            continue
        p[-1] += outliers
        q = [0.0] * i
        for level in range(levels):
            group = range(level * i // levels, (level + 1) * i // levels)
            filled = [j for j in group if counts[j] > 0]
            for j in filled:
                q[j] = sum(counts[k] for k in group) / len(filled)
        p_sum, q_sum = math.fsum(p), math.fsum(q)
        result[i] = math.fsum(
            a / p_sum * math.log((a / p_sum) / (b / q_sum)) for a, b in zip(p, q, strict=True) if a > 0
        )
    return result


def histogram_of(kind: str, bins: int) -> np.ndarray:
    generator = np.random.default_rng(4)
    values = {
        "gauss": np.abs(generator.normal(size=20_000)),
        "laplace": generator.exponential(size=20_000),
        "tail": np.append(np.abs(generator.normal(size=20_000)), generator.uniform(4, 40, size=30)),
        "sparse": generator.integers(0, 30, size=500) ** 1.5,
    }[kind]
    return np.histogram(values, bins=bins, range=(0, values.max()))[0].astype(np.float64)


@pytest.mark.parametrize("kind", ["gauss", "laplace", "tail", "sparse"])
@pytest.mark.parametrize("levels", [2, 8, 16])
def test_the_threshold_has_the_least_divergence(kind: str, levels: int) -> None:
    counts = histogram_of(kind, 160)
    expected = divergences(counts.tolist(), levels)
    assert expected[best_threshold(counts, levels)] <= min(expected.values()) + 1e-12


def test_the_tail_is_cut_and_nothing_else() -> None:
    counts = histogram_of("tail", 400)
    # The normal part ends near 4 of 40.
    assert 20 < best_threshold(counts, 16) < 120
    even = np.full(400, 7.0)
    assert best_threshold(even, 16) == 400


def test_no_more_bins_than_levels_keeps_everything() -> None:
    assert best_threshold(np.array([5.0, 0.0, 1.0]), 128) == 3
    assert best_threshold(np.array([5.0, 3.0, 1.0]), 3) == 3


@pytest.mark.parametrize(
    ("scheme", "positive", "levels"),
    [
        (QScheme(signed=True, symmetric=True), False, 128),
        (QScheme(signed=True, symmetric=True), True, 128),
        (QScheme(), False, 128),
        (QScheme(), True, 256),
        (QScheme(bits=4), True, 16),
        (QScheme(bits=1), False, 2),
    ],
    ids=str,
)
def test_the_range_is_that_of_the_folded_histogram(scheme: QScheme, positive: bool, levels: int) -> None:
    torch.manual_seed(6)
    batches = [torch.randn(4, 2000) ** 3 * s for s in (0.2, 1.0)]
    batches = [x.relu() if positive else x for x in batches]
    observer = EntropyObserver(bins=512)
    for x in batches:
        observer(x)
    data = torch.cat(batches).double().numpy().ravel()
    width = 2.0 ** np.ceil(np.log2(np.abs(data).max())) / 512
    magnitudes = np.abs(data[data != 0])
    counts, _ = np.histogram(magnitudes, bins=np.arange(int(magnitudes.max() / width) + 2) * width)
    expected = divergences(counts.astype(float).tolist(), levels)
    low, high = observer.range(scheme)
    best = min(expected.values())
    thresholds = np.array([i * width for i, d in expected.items() if d <= best + 1e-9])
    ends = np.stack([np.maximum(data.min(), -thresholds), np.minimum(data.max(), thresholds)], axis=1)
    assert np.abs(ends - [low.item(), high.item()]).max(1).min() < 1e-6
    if positive:
        assert low.item() == 0.0


def test_all_zeros_have_an_empty_range() -> None:
    observer = EntropyObserver()
    observer(torch.zeros(4, 4))
    assert [v.item() for v in observer.range(QScheme())] == [0.0, 0.0]


def test_channels_are_refused() -> None:
    with pytest.raises(RecipeError, match="one range per tensor, got ch_axis=0; use MSEObserver"):
        EntropyObserver(ch_axis=0)
