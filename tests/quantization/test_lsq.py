"""Learned step size: its start, its gradients against the equations of the paper, its phases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.fake_quants.lsq import MIN_SCALE, LearnableFakeQuantize, gradient_factor
from razordeploy.quantization.fake_quants.pact import PACTFakeQuantize
from razordeploy.quantization.observers.lsq import LSQObserver, LSQPerChannelObserver
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import compute_qparams, fake_quantize

SIGNED = QScheme(bits=4, signed=True, symmetric=True)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("positive", [False, True])
def test_the_first_scale_is_that_of_the_paper(bits: int, signed: bool, symmetric: bool, positive: bool) -> None:
    torch.manual_seed(1)
    batches = [torch.randn(n, 3, 70) * s for n, s in ((2, 1.0), (5, 3.0))]
    batches = [x.relu() if positive else x for x in batches]
    scheme = QScheme(bits=bits, signed=signed, symmetric=symmetric)
    observer = LSQObserver()
    for x in batches:
        observer(x)
    data = torch.cat(batches).double().numpy()
    q = compute_qparams(*observer.range(scheme), scheme)
    assert q.scale.item() == pytest.approx(2 * np.abs(data).mean() / np.sqrt(max(scheme.qmax, 1)), rel=1e-6)
    if not symmetric:
        full = compute_qparams(torch.tensor(data.min()), torch.tensor(data.max()), scheme)
        assert q.zero_point.item() == full.zero_point.item()


def test_channels_have_first_scales_of_their_own() -> None:
    torch.manual_seed(1)
    w = torch.randn(5, 3, 3) * torch.arange(5.0).view(5, 1, 1)
    observer = LSQPerChannelObserver()
    observer(w)
    scheme = QScheme(signed=True, symmetric=True, ch_axis=0)
    q = compute_qparams(*observer.range(scheme), scheme)
    expected = 2 * w.double().abs().mean((1, 2)) / np.sqrt(127)
    torch.testing.assert_close(q.scale[1:].double(), expected[1:], rtol=1e-6, atol=0)
    # A channel of zeros has no range: scale 1.
    assert q.scale[0].item() == 1.0
    one = compute_qparams(*observer.range(QScheme(signed=True, symmetric=True)), QScheme(signed=True, symmetric=True))
    assert one.scale.item() == pytest.approx(2 * w.double().abs().mean().item() / np.sqrt(127), rel=1e-6)


def test_the_mean_does_not_drift_over_many_values() -> None:
    observer = LSQObserver()
    for _ in range(4):
        observer(torch.full((1 << 20,), 0.1))
    assert observer.abs_sum.item() / (1 << 22) == pytest.approx(float(np.float32(0.1)), rel=1e-6)


def learnable(scheme: QScheme, scale: object, zero_point: object, **keywords: bool) -> LearnableFakeQuantize:
    module = LearnableFakeQuantize(scheme=scheme, **keywords)
    q = QParams(scale=torch.tensor(scale), zero_point=torch.tensor(zero_point), scheme=scheme)
    module.set_qparams(q)
    return module


def paper(x: np.ndarray, s: float, z: int, scheme: QScheme) -> tuple[np.ndarray, ...]:
    """Output and the partial derivatives by x, s and z, value by value (Esser eq. 1-5; Bhalgat eq. 6)."""
    q_n, q_p = z - scheme.qmin, scheme.qmax - z
    out, by_x, by_s, by_z = (np.zeros_like(x) for _ in range(4))
    for i, value in np.ndenumerate(x):
        v = value / s
        out[i] = np.rint(min(max(v, -q_n), q_p)) * s
        if v <= -q_n:
            by_s[i], by_z[i] = -q_n, -s
        elif v >= q_p:
            by_s[i], by_z[i] = q_p, -s
        else:
            by_x[i], by_s[i] = 1.0, -v + np.rint(v)
    return out, by_x, by_s, by_z


@pytest.mark.parametrize(
    ("scheme", "scale", "zero_point"),
    [
        (SIGNED, 0.13, 0),
        (QScheme(bits=2, signed=True, symmetric=True), 0.4, 0),
        (QScheme(bits=8, symmetric=True), 0.01, 0),
        (QScheme(bits=4), 0.11, 5),
        (QScheme(bits=1, signed=True, symmetric=True), 0.5, 0),
    ],
    ids=str,
)
def test_gradients_are_those_of_the_paper(scheme: QScheme, scale: float, zero_point: int) -> None:
    torch.manual_seed(2)
    module = learnable(scheme, scale, zero_point, learn_zero_point=not scheme.symmetric)
    x = torch.randn(6, 3, 5, requires_grad=True)
    weight = torch.randn(6, 3, 5)
    y = module(x)
    (y * weight).sum().backward()
    g = weight.double().numpy()
    out, by_x, by_s, by_z = paper(x.detach().double().numpy(), float(np.float32(scale)), zero_point, scheme)
    factor = 1 / np.sqrt(x.numel() * max(scheme.qmax, 1))
    np.testing.assert_allclose(y.detach().numpy(), out, atol=1e-6)
    assert x.grad is not None
    assert module.scale.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), g * by_x, atol=1e-6)
    assert module.scale.grad.item() == pytest.approx((g * by_s).sum() * factor, rel=1e-4)
    if scheme.symmetric:
        assert module.zero_point.grad is None
    else:
        assert module.zero_point.grad is not None
        assert module.zero_point.grad.item() == pytest.approx((g * by_z).sum() * factor, rel=1e-4)


def test_per_channel_gradients_are_those_of_each_channel() -> None:
    torch.manual_seed(2)
    scheme = QScheme(bits=3, ch_axis=1)
    scales, zeros = [0.1, 0.3, 0.7], [0, 3, 7]
    module = learnable(scheme, scales, zeros, learn_zero_point=True)
    x = torch.randn(4, 3, 6)
    weight = torch.randn(4, 3, 6)
    (module(x) * weight).sum().backward()
    assert module.scale.grad is not None
    assert module.zero_point.grad is not None
    factor = 1 / np.sqrt(x.numel() / 3 * 7)
    for c in range(3):
        _, _, by_s, by_z = paper(x[:, c].double().numpy(), float(np.float32(scales[c])), zeros[c], scheme)
        g = weight[:, c].double().numpy()
        assert module.scale.grad[c].item() == pytest.approx((g * by_s).sum() * factor, rel=1e-4)
        assert module.zero_point.grad[c].item() == pytest.approx((g * by_z).sum() * factor, rel=1e-4)


def test_the_gradient_factor_is_one_over_the_root() -> None:
    assert gradient_factor(400, 127) == pytest.approx((400 * 127) ** -0.5)
    assert gradient_factor(9, 0) == pytest.approx(1 / 3)


def test_training_the_scale_lowers_the_error() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000)
    module = learnable(SIGNED, 0.02, 0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.3)

    def error() -> torch.Tensor:
        return (module(x) - x).square().mean()

    before = error().item()
    for _ in range(200):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < before / 20
    # The least-squares step of a normal distribution at 15 levels is near 0.33.
    assert 0.25 < module.scale.item() < 0.42


def test_the_scale_in_use_stays_positive_and_comes_back() -> None:
    module = learnable(SIGNED, 0.1, 0)
    x = torch.randn(100)
    with torch.no_grad():
        module.scale.fill_(-0.5)
    y = module(x)
    assert torch.isfinite(y).all()
    assert module.qparams.scale.item() == pytest.approx(MIN_SCALE)
    (y - x).square().sum().backward()
    assert module.scale.grad is not None
    assert module.scale.grad.item() < 0


def test_learning_starts_from_the_first_batch_once() -> None:
    torch.manual_seed(0)
    module = LearnableFakeQuantize(scheme=SIGNED)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    assert not module.initialized
    x = torch.randn(50)
    module(x)
    assert module.initialized
    assert module.scale.item() == pytest.approx(2 * x.abs().mean().item() / np.sqrt(7), rel=1e-6)
    first = module.scale.item()
    module(x * 100)
    assert module.scale.item() == first
    (module(x) - x).square().sum().backward()
    optimizer.step()
    assert module.scale.item() != first, "the optimizer lost the parameter"


@pytest.mark.parametrize("axis", [None, 0])
def test_a_resumed_training_keeps_its_scale(axis: int | None) -> None:
    scheme = QScheme(bits=4, signed=True, symmetric=True, ch_axis=axis)
    module = LearnableFakeQuantize(scheme=scheme)
    module(torch.randn(3, 20))
    resumed = LearnableFakeQuantize(scheme=scheme)
    held = [id(p) for p in resumed.parameters()]
    resumed.load_state_dict(module.state_dict())
    assert resumed.initialized
    assert [id(p) for p in resumed.parameters()] == held
    resumed(torch.randn(3, 20) * 1000)
    assert torch.equal(resumed.scale, module.scale)
    assert resumed.scale.requires_grad


def test_the_phases_switch_what_they_name() -> None:
    module = LearnableFakeQuantize(scheme=SIGNED)
    module.enable_static_estimate()
    assert not module.scale.requires_grad
    a, b = torch.randn(40), torch.randn(40) * 5
    module(a)
    module(b)
    both = torch.cat([a, b]).abs().mean().item()
    assert module.scale.item() == pytest.approx(2 * both / np.sqrt(7), rel=1e-5)
    module.enable_param_learning()
    module(b * 100)
    assert module.scale.item() == pytest.approx(2 * both / np.sqrt(7), rel=1e-5)
    assert module.scale.requires_grad
    assert not module.zero_point.requires_grad
    module.enable_val()
    assert not module.scale.requires_grad
    assert torch.equal(module(b), fake_quantize(b, module.qparams))


def test_validation_before_any_scale_is_refused() -> None:
    module = LearnableFakeQuantize(scheme=SIGNED)
    module.enable_val()
    with pytest.raises(DataError, match="LearnableFakeQuantize has no scale yet; run calibration data"):
        module(torch.ones(3))


def test_what_cannot_be_learned_is_refused() -> None:
    with pytest.raises(RecipeError, match="learn_zero_point needs an affine grid"):
        LearnableFakeQuantize(scheme=SIGNED, learn_zero_point=True)
    with pytest.raises(RecipeError, match="cannot start from NoopObserver"):
        LearnableFakeQuantize(scheme=SIGNED, observer="NoopObserver")


def test_the_ends_of_the_grid_count_as_clipped() -> None:
    # Equation 3: the gradient is that of the bound from v = Q_P and v = -Q_N on.
    module = learnable(SIGNED, 0.5, 0)
    x = torch.tensor([-4.0, 3.5, 3.4], requires_grad=True)
    (module(x) * torch.tensor([100.0, 1.0, 0.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0, 0.0]
    assert module.scale.grad is not None
    assert module.scale.grad.item() == pytest.approx((-8 * 100 + 7) / np.sqrt(3 * 7))


@pytest.mark.parametrize("cls", [LearnableFakeQuantize, PACTFakeQuantize])
def test_a_floor_stays_a_whole_number_of_steps_away(cls):
    torch.manual_seed(0)
    made = cls(scheme=QScheme(floor=-3.0))
    x = torch.randn(64, 8) * 4
    made(x)
    with torch.no_grad():
        made.scale.mul_(1.037)
    out = made(x)
    steps = int(made.qparams.zero_point)
    assert float(made.qparams.scale) * steps == pytest.approx(3.0, rel=1e-6)
    assert out.detach().min() == pytest.approx(-3.0, rel=1e-6)
    torch.testing.assert_close(out, fake_quantize(x, made.qparams))  # training rounds as what is exported does
    out.square().sum().backward()
    assert made.scale.grad is not None and made.scale.grad.isfinite() and made.scale.grad != 0
