"""Scale, zero point and rounding, against float64 numpy written from the definitions."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import (
    compute_qparams,
    dequantize,
    fake_quantize,
    quantize,
    representable_range,
    storage_dtype,
    with_floor,
)

SCHEMES = [
    QScheme(bits=bits, signed=signed, symmetric=symmetric, symmetric_range=narrow)
    for bits, signed, symmetric, narrow in itertools.product(range(1, 17), (False, True), (False, True), (False, True))
    if signed or not narrow
]
RANGES = [(-1.0, 2.0), (-3.0, 0.5), (0.0, 6.0), (1.5, 4.0), (-4.0, -1.0), (0.0, 0.0), (-1e-6, 1e5)]


def ids(scheme: QScheme) -> str:
    words = ["s" if scheme.signed else "u", str(scheme.bits), "sym" if scheme.symmetric else "aff"]
    return "".join(words) + ("-narrow" if scheme.symmetric_range else "")


def reference(low: float, high: float, scheme: QScheme) -> tuple[float, int]:
    """The rules, one branch at a time, in Python floats (float64)."""
    if scheme.signed:
        qmin, qmax = -(2 ** (scheme.bits - 1)), 2 ** (scheme.bits - 1) - 1
        if scheme.symmetric_range and scheme.bits > 1:
            qmin += 1
    else:
        qmin, qmax = 0, 2**scheme.bits - 1
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 1.0, 0
    if scheme.symmetric and scheme.signed:
        return max(-low, high) / (qmax if scheme.bits > 1 else 1), 0
    if scheme.symmetric:
        if low == 0:
            return high / qmax, 0
        middle = 2 ** (scheme.bits - 1)
        return max(-low, high) / (qmax - middle if scheme.bits > 1 else 1), middle
    scale = (high - low) / (qmax - qmin)
    return scale, int(np.clip(np.rint(qmin - low / scale), qmin, qmax))


@pytest.mark.parametrize("scheme", SCHEMES, ids=ids)
def test_scale_and_zero_point_follow_the_rules(scheme: QScheme) -> None:
    for low, high in RANGES:
        q = compute_qparams(torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64), scheme)
        scale, zero_point = reference(low, high, scheme)
        assert q.scale.dtype == torch.float32
        assert q.zero_point.dtype == torch.int64
        assert q.scale.item() == np.float32(scale), (low, high)
        assert q.zero_point.item() == zero_point, (low, high)


@pytest.mark.parametrize("scheme", SCHEMES[::5], ids=ids)
def test_channels_are_computed_one_by_one(scheme: QScheme) -> None:
    low, high = (torch.tensor(v, dtype=torch.float64) for v in zip(*RANGES, strict=True))
    q = compute_qparams(low, high, scheme)
    for i, (a, b) in enumerate(RANGES):
        assert (q.scale[i].item(), q.zero_point[i].item()) == (
            np.float32(reference(a, b, scheme)[0]),
            reference(a, b, scheme)[1],
        )


@pytest.mark.parametrize("scheme", SCHEMES, ids=ids)
def test_rounding_to_the_grid_matches_float64(scheme: QScheme) -> None:
    q = compute_qparams(torch.tensor(-1.3), torch.tensor(2.7), scheme)
    x = torch.linspace(-4, 4, 999)
    scale, zero_point = float(q.scale), int(q.zero_point)
    # float32 division, as engines do it: a float64 quotient can round the other way next to a tie.
    quotient = (x.numpy() / np.float32(scale)).astype(np.float64)
    integers = np.clip(np.rint(quotient) + zero_point, scheme.qmin, scheme.qmax)
    np.testing.assert_array_equal(quantize(x, q).long().numpy(), integers)
    values = (integers - zero_point) * scale
    np.testing.assert_allclose(dequantize(quantize(x, q), q).double().numpy(), values, rtol=1e-7, atol=0)
    np.testing.assert_allclose(fake_quantize(x, q).double().numpy(), values, rtol=1e-7, atol=0)
    assert fake_quantize(torch.zeros(1), q).item() == 0.0


def test_ties_go_to_even_and_the_quotient_is_a_true_division() -> None:
    scheme = QScheme(signed=True, symmetric=True)
    q = QParams(scale=torch.tensor(2.0), zero_point=torch.tensor(0), scheme=scheme)
    assert quantize(torch.tensor([1.0, 3.0, 5.0, -1.0, -3.0]), q).tolist() == [0, 2, 2, 0, -2]
    # 2.5 steps of this scale divide to exactly 2.5, but the reciprocal gives 2.4999998 or 2.5000002 for some.
    scales = torch.arange(1, 4000).float() / 1000
    x = scales * 12.5
    exact = torch.tensor(
        [np.rint(np.float32(a) / np.float32(b)) for a, b in zip(x.tolist(), scales.tolist(), strict=True)]
    )
    per_channel = QParams(scale=scales, zero_point=torch.zeros(3999).long(), scheme=QScheme(signed=True, ch_axis=0))
    assert torch.equal(quantize(x, per_channel).float(), exact)
    assert not torch.equal((x * (1 / scales)).round(), exact), "the example does not tell division from reciprocal"


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
def test_per_channel_equals_channel_by_channel(axis: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 2, 5)
    count = x.shape[axis]
    q = QParams(
        scale=torch.rand(count) / 20 + 0.01,
        zero_point=torch.arange(count) * 20,
        scheme=QScheme(ch_axis=axis),
    )
    got = fake_quantize(x, q)
    for c in range(count):
        one = QParams(scale=q.scale[c], zero_point=q.zero_point[c], scheme=QScheme())
        assert torch.equal(got.select(axis, c), fake_quantize(x.select(axis, c), one))
    assert torch.equal(got, dequantize(quantize(x, q), q))


def test_matches_torch_where_the_reciprocal_is_exact() -> None:
    x = torch.linspace(-40, 40, 4001)
    q = QParams(scale=torch.tensor(0.25), zero_point=torch.tensor(100), scheme=QScheme())
    assert torch.equal(fake_quantize(x, q), torch.fake_quantize_per_tensor_affine(x, 0.25, 100, 0, 255))


def test_gradient_is_one_inside_and_zero_outside() -> None:
    q = QParams(scale=torch.tensor(0.5), zero_point=torch.tensor(0), scheme=QScheme(bits=3, signed=True))
    # Grid -2 ... 1.5; 1.7 still rounds to an integer of the grid, 1.8 does not.
    x = torch.tensor([-2.3, -2.2, -2.0, 0.1, 1.5, 1.7, 1.8], requires_grad=True)
    (fake_quantize(x, q) * torch.arange(1.0, 8.0)).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.0]


def test_half_precision_keeps_its_dtype() -> None:
    q = QParams(scale=torch.tensor(0.1), zero_point=torch.tensor(3), scheme=QScheme())
    x = torch.linspace(-1, 1, 50, dtype=torch.bfloat16, requires_grad=True)
    y = fake_quantize(x, q)
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("scheme", SCHEMES, ids=ids)
def test_storage_holds_the_grid(scheme: QScheme) -> None:
    info = torch.iinfo(storage_dtype(scheme))
    assert info.min <= scheme.qmin
    assert scheme.qmax <= info.max


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_range_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match=r"expected a finite range, got min .* in 1 of 2 channels; look for NaN"):
        compute_qparams(torch.tensor([0.0, 0.0]), torch.tensor([1.0, bad]), QScheme(ch_axis=0))
    with pytest.raises(DataError, match="expected a finite range"):
        compute_qparams(torch.tensor(bad), torch.tensor(1.0), QScheme())


def test_a_range_that_is_upside_down_or_ragged_is_refused() -> None:
    with pytest.raises(DataError, match="expected min <= max"):
        compute_qparams(torch.tensor(1.0), torch.tensor(-1.0), QScheme())
    with pytest.raises(DataError, match=r"one shape.*got \(2,\) and \(\)"):
        compute_qparams(torch.zeros(2), torch.tensor(1.0), QScheme())
    q = QParams(scale=torch.ones(3), zero_point=torch.zeros(3).long(), scheme=QScheme(ch_axis=0))
    with pytest.raises(DataError, match=r"axis 0 of a tensor of shape \(2, 3\), got 3 scales"):
        quantize(torch.zeros(2, 3), q)


@pytest.mark.parametrize("scheme", [QScheme(), QScheme(bits=1), QScheme(signed=True, symmetric=True)], ids=ids)
def test_extreme_ranges_give_a_usable_scale(scheme: QScheme) -> None:
    for low, high in [(-3.4e38, 3.4e38), (0.0, 1e-44), (-1e-45, 0.0)]:
        q = compute_qparams(torch.tensor(low), torch.tensor(high), scheme)
        assert 0 < q.scale.item() < float("inf")
        assert torch.isfinite(fake_quantize(torch.tensor([low, 0.0, high]) / 4, q)).all()


@pytest.mark.parametrize("scheme", SCHEMES, ids=ids)
def test_representable_range_inverts_compute_qparams(scheme: QScheme) -> None:
    for low, high in RANGES:
        q = compute_qparams(torch.tensor(low), torch.tensor(high), scheme)
        again = compute_qparams(*representable_range(q.scale, q.zero_point, scheme), scheme)
        assert again.zero_point.item() == q.zero_point.item(), (low, high)
        assert again.scale.item() == pytest.approx(q.scale.item(), rel=1e-6), (low, high)


def test_a_zero_point_that_the_grid_cannot_have_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"zero point in \[0, 255\], the grid's range, got 300"):
        representable_range(torch.tensor(1.0), torch.tensor(300), QScheme())
    with pytest.raises(RecipeError, match=r"among \[0\] for a symmetric grid, got 3; use an affine"):
        representable_range(torch.tensor(1.0), torch.tensor(3), QScheme(signed=True, symmetric=True))


@pytest.mark.parametrize("high", [0.0, 0.01, 2.9, 3.0, 7.3, 1e4])
def test_floor_is_a_whole_number_of_steps_below_zero(high):
    scheme = QScheme(floor=-3.0)
    q = compute_qparams(torch.tensor(-20.0), torch.tensor(high), scheme)
    steps = int(q.zero_point) - scheme.qmin
    assert 1 <= steps <= 255
    assert float(q.scale) * steps == pytest.approx(3.0, rel=1e-6)
    if high < 700:
        assert float(dequantize(torch.tensor(scheme.qmax), q)) >= high - 1e-4
    low, top = representable_range(q.scale, q.zero_point, scheme)
    again = compute_qparams(low, top, scheme)
    assert (again.scale, again.zero_point) == (q.scale, q.zero_point)
    moved = with_floor(replace(q, scale=q.scale * 1.003))
    assert float(moved.scale) * (int(moved.zero_point) - scheme.qmin) == pytest.approx(3.0, rel=1e-6)


def test_floor_needs_an_affine_grid():
    with pytest.raises(RecipeError, match="floor below 0 of an affine grid"):
        QScheme(symmetric=True, floor=-3.0)
    assert with_floor(compute_qparams(torch.tensor(-1.0), torch.tensor(1.0), QScheme())).scheme.floor is None
