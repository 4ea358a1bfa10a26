"""The range with the least squared error against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError
from razordeploy.quantization.observers.mse import MSEObserver
from razordeploy.quantization.observers.search import least_loss

SCHEMES = [
    QScheme(bits=bits, signed=signed, symmetric=symmetric)
    for bits in (1, 2, 4, 8)
    for signed in (False, True)
    for symmetric in (False, True)
]


def brute_force(x: np.ndarray, scheme: QScheme, steps: int = 100) -> tuple[float, np.ndarray]:
    """Best ratio and the errors of all of them (1/steps first), from the definitions in float64."""
    errors = []
    low, high = min(x.min(), 0.0), max(x.max(), 0.0)
    for step in range(1, steps + 1):
        a, b = low * step / steps, high * step / steps
        if not scheme.symmetric:
            scale = (b - a) / (scheme.qmax - scheme.qmin)
            zero = np.clip(np.rint(scheme.qmin - a / scale), scheme.qmin, scheme.qmax)
        elif scheme.signed:
            scale, zero = max(-a, b) / max(scheme.qmax, 1), 0
        elif a == 0:
            scale, zero = b / scheme.qmax, 0
        else:
            zero = 2 ** (scheme.bits - 1)
            scale = max(-a, b) / max(scheme.qmax - zero, 1)
        q = np.clip(np.rint(x / scale) + zero, scheme.qmin, scheme.qmax)
        errors.append((((q - zero) * scale - x) ** 2).sum())
    return (int(np.argmin(errors)) + 1) / steps, np.array(errors)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("kind", ["gauss", "heavy", "positive"])
def test_weights_get_the_ratio_of_brute_force(scheme: QScheme, kind: str) -> None:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(8, 300, generator=generator)
    x = {"gauss": x, "heavy": x**3, "positive": x.abs()}[kind]
    observer = MSEObserver(ch_axis=0)
    observer(x)
    per_channel = QScheme(bits=scheme.bits, signed=scheme.signed, symmetric=scheme.symmetric, ch_axis=0)
    _, high = observer.range(per_channel)
    for c in range(8):
        row = x[c].double().numpy()
        _, errors = brute_force(row, scheme)
        ratio = round(high[c].item() / row.max() * 100)
        # By error, not by ratio: two ratios may tie up to float32.
        assert errors[ratio - 1] <= errors.min() * (1 + 1e-5)
    low, high = observer.range(scheme)
    ratio = round(high.item() / x.max().item() * 100)
    _, errors = brute_force(x.double().numpy(), scheme)
    assert errors[ratio - 1] <= errors.min() * (1 + 1e-5)


def test_clipping_pays_at_few_bits_and_the_test_data_shows_it() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000)
    observer = MSEObserver()
    observer(x)
    ratios = [
        observer.range(QScheme(bits=b, signed=True, symmetric=True))[1].item() / x.max().item() for b in (2, 4, 8)
    ]
    assert ratios[0] < ratios[1] < ratios[2] <= 1
    assert ratios[1] < 0.9


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("axis", [None, 1])
def test_streamed_activations_come_near_brute_force(scheme: QScheme, axis: int | None) -> None:
    generator = torch.Generator().manual_seed(9)
    batches = [torch.randn(6, 3, 500, generator=generator) * s - 0.3 for s in (0.1, 1.0, 0.7)]
    observer = MSEObserver(ch_axis=axis)
    for x in batches:
        observer(x)
    assert observer.kept.numel() == 0
    data = torch.cat(batches).double().numpy()
    groups = [data.ravel()] if axis is None else [data[:, c].ravel() for c in range(3)]
    grid = QScheme(bits=scheme.bits, signed=scheme.signed, symmetric=scheme.symmetric, ch_axis=axis)
    _, high = observer.range(grid)
    for top, values in zip(high.reshape(-1).tolist(), groups, strict=True):
        _, errors = brute_force(values, scheme)
        assert errors[round(top / values.max() * 100) - 1] <= errors.min() * 1.01


def test_a_weight_seen_again_stays_exact_and_another_tensor_does_not() -> None:
    torch.manual_seed(0)
    w = torch.randn(4, 10)
    observer = MSEObserver(ch_axis=0)
    observer(w)
    first = observer.range(QScheme(bits=4, signed=True, symmetric=True, ch_axis=0))
    observer(w)
    again = observer.range(QScheme(bits=4, signed=True, symmetric=True, ch_axis=0))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert observer.counts.numel() == 0
    observer(w + 1)
    assert observer.counts.sum().item() == 80


def test_what_was_kept_does_not_follow_the_parameter() -> None:
    w = torch.ones(3, 3)
    observer = MSEObserver()
    observer(w)
    w.mul_(100)
    assert observer.range(QScheme())[1].item() <= 1.0


def test_a_large_tensor_goes_to_the_histogram_at_once() -> None:
    observer = MSEObserver(exact_values=10)
    observer(torch.randn(11))
    assert observer.kept.numel() == 0
    assert observer.counts.sum().item() == 11


def test_steps_below_one_are_refused() -> None:
    with pytest.raises(RecipeError, match="steps of 1 or more, got 0"):
        MSEObserver(steps=0)


def test_the_widest_of_equally_good_ranges_wins() -> None:
    ranges = torch.tensor([[4.0], [3.0], [2.0]])
    assert least_loss(-ranges, ranges, QScheme(), lambda scale, zero_point: torch.ones(1).double()).tolist() == [0]
    assert least_loss(-ranges, ranges, QScheme(), lambda scale, zero_point: scale[:, 0].double()).tolist() == [2]


@pytest.mark.parametrize("exact_values", [0, 1 << 22], ids=["histogram", "values"])
def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch, exact_values: int) -> None:
    """Channels are searched a few at a time; each stops by itself, and finds what it would alone."""
    weight = torch.randn(24, 50) * torch.linspace(0.1, 4, 24).view(-1, 1)
    weight[::5, 3] = 30.0
    scheme = QScheme(bits=4, signed=True, symmetric=True, symmetric_range=True, ch_axis=0)
    found = []
    for block in (1, 1 << 30):
        monkeypatch.setattr("razordeploy.quantization.observers.search._BLOCK", block)
        observer = MSEObserver(ch_axis=0, exact_values=exact_values)
        observer.observe(weight)
        found.append(observer.range(scheme))
    assert bool((found[0][1] < weight.amax(1)).any())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
