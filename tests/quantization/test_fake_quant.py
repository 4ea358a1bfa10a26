"""The fake quantization modules: switches, state, names."""

from __future__ import annotations

import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.fake_quants.fake_quantize import (
    FakeQuantize,
    FixedQParamsFakeQuantize,
    FusedMovingAvgObsFakeQuantize,
)
from razordeploy.quantization.fake_quants.table import FAKE_QUANTS, build_fake_quant
from razordeploy.quantization.observers.mse import MSEObserver
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import compute_qparams, fake_quantize

AFFINE = QScheme()
WEIGHT = QScheme(signed=True, symmetric=True, symmetric_range=True, ch_axis=0)


def test_it_rounds_to_the_observed_grid() -> None:
    x = torch.randn(4, 30)
    module = FakeQuantize(scheme=WEIGHT, observer="PerChannelMinMaxObserver")
    q = compute_qparams(x.amin(1), x.amax(1), WEIGHT)
    assert torch.equal(module(x), fake_quantize(x, q))
    scale, zero_point = module.calculate_qparams()
    assert torch.equal(scale, q.scale)
    assert torch.equal(zero_point, q.zero_point)


def test_the_switches_are_independent() -> None:
    module = FakeQuantize(scheme=AFFINE, observer="MinMaxObserver")
    x = torch.linspace(-1, 1, 11)
    module.disable_fake_quant()
    assert module(x) is x
    scale = module.qparams.scale.item()
    module.disable_observer()
    module.enable_fake_quant()
    assert module(x * 50).abs().max() < 1.01
    assert module.qparams.scale.item() == scale
    module.enable_observer()
    assert module(x * 50).max() > 49
    assert module.qparams.scale.item() == pytest.approx(scale * 50)


def test_only_observing_never_searches_for_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    module = FakeQuantize(scheme=AFFINE, observer=MSEObserver())
    module.disable_fake_quant()
    searches = []
    search = MSEObserver._range
    monkeypatch.setattr(MSEObserver, "_range", lambda self, scheme: searches.append(1) or search(self, scheme))
    for _ in range(3):
        module(torch.randn(8))
    assert not searches
    assert module.initialized
    _ = module.qparams, module.qparams
    assert len(searches) == 1


def test_without_data_there_is_no_scale() -> None:
    module = FakeQuantize(scheme=AFFINE)
    module.disable_observer()
    with pytest.raises(DataError, match="FakeQuantize has no scale yet"):
        module(torch.ones(2))


@pytest.mark.parametrize("name", ["FakeQuantize", "FusedMovingAvgObsFakeQuantize", "LearnableFakeQuantize"])
@pytest.mark.parametrize("scheme", [AFFINE, WEIGHT], ids=["tensor", "channel"])
def test_the_state_round_trips(name: str, scheme: QScheme) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 8)
    module = build_fake_quant(name, scheme=scheme)
    module(x)
    module.disable_observer()
    other = build_fake_quant(name, scheme=scheme)
    other.load_state_dict(module.state_dict())
    assert other.state_dict().keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[key], value), key
    assert torch.equal(other(x * 2), module(x * 2))
    assert not other.observer_enabled


def test_a_scale_not_yet_needed_is_in_the_state_too() -> None:
    module = FakeQuantize(scheme=AFFINE, observer="MinMaxObserver")
    module.disable_fake_quant()
    module(torch.tensor([0.0, 255.0]))
    assert module.state_dict()["scale"].item() == 1.0
    module(torch.tensor([0.0, 510.0]))
    assert module.state_dict()["scale"].item() == 2.0


def test_given_qparams_are_used_as_they_are() -> None:
    q = QParams(scale=torch.tensor([0.1, 0.2]), zero_point=torch.tensor([0, 0]), scheme=WEIGHT)
    module = FakeQuantize.from_qparams(q)
    x = torch.randn(2, 50) * 30
    assert torch.equal(module(x), fake_quantize(x, q))
    assert torch.equal(module.qparams.scale, q.scale)


def test_fixed_qparams_ignore_the_data() -> None:
    module = FixedQParamsFakeQuantize(scheme=AFFINE, scale=1 / 256)
    module.enable_observer()
    x = torch.rand(100) * 3
    q = QParams(scale=torch.tensor(1 / 256), zero_point=torch.tensor(0), scheme=AFFINE)
    assert torch.equal(module(x), fake_quantize(x, q))
    with pytest.raises(RecipeError, match=r"zero point in \[0, 255\]"):
        FixedQParamsFakeQuantize(scheme=AFFINE, scale=1.0, zero_point=-3)


def test_fused_needs_a_moving_average() -> None:
    with pytest.raises(RecipeError, match="got HistogramObserver; use FakeQuantize"):
        FusedMovingAvgObsFakeQuantize(scheme=AFFINE, observer="HistogramObserver")


def test_every_name_that_mmrazor_had_is_in_the_table() -> None:
    assert set(FAKE_QUANTS) - {"PACTFakeQuantize"} == {
        "FakeQuantize",
        "FakeQuantizeBase",
        "FixedQParamsFakeQuantize",
        "FusedMovingAvgObsFakeQuantize",
        "LearnableFakeQuantize",
    }


@pytest.mark.parametrize("prefix", ["", "mmrazor.", "torch."])
def test_names_and_mappings_build(prefix: str) -> None:
    module = build_fake_quant(
        {"type": f"{prefix}FakeQuantize", "observer": {"type": "MSEObserver", "steps": 20}}, scheme=WEIGHT
    )
    assert isinstance(module.observer, MSEObserver)
    assert module.observer.steps == 20
    assert module.observer.ch_axis == 0
    chosen = build_fake_quant(
        {"type": "FakeQuantize", "observer": "MSEObserver"}, scheme=AFFINE, observer="MinMaxObserver"
    )
    assert type(chosen.observer).__name__ == "MinMaxObserver"


def test_wrong_names_say_what_was_meant() -> None:
    with pytest.raises(RecipeError, match="unknown fake quant 'FakeQuantise'; did you mean 'FakeQuantize'"):
        build_fake_quant("FakeQuantise", scheme=AFFINE)
    with pytest.raises(
        RecipeError, match="LearnableFakeQuantize has no keyword 'learn_zero'; did you mean 'learn_zero_point'"
    ):
        build_fake_quant({"type": "LearnableFakeQuantize", "learn_zero": True}, scheme=AFFINE)
    with pytest.raises(RecipeError, match="FixedQParamsFakeQuantize needs scale"):
        build_fake_quant("FixedQParamsFakeQuantize", scheme=AFFINE)
    with pytest.raises(RecipeError, match="FakeQuantizeBase is a base class"):
        build_fake_quant("FakeQuantizeBase", scheme=AFFINE)
