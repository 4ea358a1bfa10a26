"""What every observer of the table promises: names, state, memory, NaN, errors."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from razordeploy.config.scheme import QScheme
from razordeploy.errors import DataError, RecipeError
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.observers.passive import FixedQParamsObserver, RecordingObserver
from razordeploy.quantization.observers.table import OBSERVERS, build_observer
from razordeploy.quantization.qparams import compute_qparams

ABSTRACT = {"ObserverBase", "UniformQuantizationObserverBase"}
RANGELESS = {"NoopObserver", "PlaceholderObserver", "ReuseInputObserver"}
DATA_FREE = RANGELESS | ABSTRACT | {"FixedQParamsObserver"}
MEASURING = sorted(set(OBSERVERS) - DATA_FREE)
PER_TENSOR_ONLY = {"EntropyObserver"}
SCHEMES = [
    QScheme(bits=b, signed=s, symmetric=y, ch_axis=a)
    for b in (1, 4, 8, 16)
    for s in (False, True)
    for y in (False, True)
    for a in (None, 0)
]


def entry(name: str) -> dict[str, Any]:
    """The least that a recipe has to write for it."""
    return {"type": name, "scale": 0.1} if name == "FixedQParamsObserver" else {"type": name}


def data(seed: int = 0) -> torch.Tensor:
    return torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(seed)) * (seed + 1)


def test_the_table_has_every_name_that_mmrazor_and_nncf_recipes_use() -> None:
    mmrazor_own = {"LSQObserver", "LSQPerChannelObserver"}
    torch_names = {
        "FixedQParamsObserver", "HistogramObserver", "MinMaxObserver", "MovingAverageMinMaxObserver",
        "MovingAveragePerChannelMinMaxObserver", "NoopObserver", "ObserverBase", "PerChannelMinMaxObserver",
        "PlaceholderObserver", "RecordingObserver", "ReuseInputObserver", "UniformQuantizationObserverBase",
    }  # fmt: skip
    ours = {"MeanMinMaxObserver", "PercentileObserver", "MSEObserver", "EntropyObserver"}
    assert set(OBSERVERS) == mmrazor_own | torch_names | ours


@pytest.mark.parametrize("name", sorted(set(OBSERVERS) - ABSTRACT))
@pytest.mark.parametrize("prefix", ["", "mmrazor.", "torch."])
def test_every_name_builds(name: str, prefix: str) -> None:
    observer = build_observer(entry(name) | {"type": prefix + name})
    assert type(observer).__name__ == name
    assert observer.ch_axis == (0 if "PerChannel" in name else None)
    if name not in PER_TENSOR_ONLY:
        assert build_observer(entry(name), ch_axis=1).ch_axis == 1
        assert build_observer(entry(name) | {"ch_axis": 2}).ch_axis == 2


@pytest.mark.parametrize("name", sorted(ABSTRACT))
def test_base_classes_are_refused(name: str) -> None:
    with pytest.raises(
        RecipeError, match="base class cannot be built.*name a concrete observer such as MinMaxObserver"
    ):
        build_observer(name)


def test_wrong_entries_say_what_was_meant() -> None:
    for config, message in [
        ("MinMaxObserer", "unknown observer 'MinMaxObserer'; did you mean 'MinMaxObserver'?"),
        ("torch.Zzz", "unknown observer 'torch.Zzz'; known: EntropyObserver, FixedQParamsObserver"),
        ({"bins": 3}, "expected observer to be a name or a mapping with a 'type', got {'bins': 3}"),
        ({"type": "PercentileObserver", "percentil": 9}, "no keyword 'percentil'; did you mean 'percentile'?"),
        ({"type": "MinMaxObserver", "dtype": 1}, "MinMaxObserver has no keyword 'dtype'; known: ch_axis"),
        ("FixedQParamsObserver", "FixedQParamsObserver needs scale"),
    ]:
        with pytest.raises(RecipeError, match=re.escape(message)):
            build_observer(config)  # type: ignore[arg-type]


def test_building_leaves_the_recipe_alone() -> None:
    config = {"type": "MSEObserver", "steps": 10}
    build_observer(config, ch_axis=0)
    assert config == {"type": "MSEObserver", "steps": 10}


@pytest.mark.parametrize("name", MEASURING)
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_one_state_serves_every_grid(name: str, scheme: QScheme) -> None:
    if name in PER_TENSOR_ONLY and scheme.ch_axis is not None:
        pytest.skip("one range per tensor")
    observer = build_observer(name, ch_axis=scheme.ch_axis)
    observer(data())
    observer(data(1))
    before = {k: v.clone() for k, v in observer.state_dict().items()}
    low, high = observer.range(scheme)
    expected_shape = () if scheme.ch_axis is None else (6,)
    assert low.shape == high.shape == expected_shape
    assert low.dtype == high.dtype == torch.float32
    assert (compute_qparams(low, high, scheme).scale > 0).all()
    for key, value in observer.state_dict().items():
        assert torch.equal(value, before[key]), f"range() changed {key}"


@pytest.mark.parametrize("name", MEASURING)
@pytest.mark.parametrize("axis", [None, 1])
@pytest.mark.parametrize("batches", [1, 3])
def test_the_state_round_trips_into_a_fresh_observer(name: str, axis: int | None, batches: int) -> None:
    if name in PER_TENSOR_ONLY and axis is not None:
        pytest.skip("one range per tensor")
    observer, other = build_observer(name, ch_axis=axis), build_observer(name, ch_axis=axis)
    for seed in range(batches):
        observer(data(seed))
    other.load_state_dict(observer.state_dict())
    scheme = QScheme(ch_axis=other.ch_axis)
    for step in range(2):
        assert other.count == observer.count
        for a, b in zip(observer.range(scheme), other.range(scheme), strict=True):
            assert torch.equal(a, b)
        # And both go on from there alike.
        observer(data(7 + step))
        other(data(7 + step))


@pytest.mark.parametrize("name", MEASURING)
def test_reset_forgets_everything(name: str) -> None:
    observer, fresh = build_observer(name), build_observer(name)
    observer(data(3) * 100)
    observer(torch.full((6, 4, 5), float("nan")))
    observer.reset()
    assert observer.count == 0
    assert not observer.non_finite()
    with pytest.raises(DataError, match="has observed no data"):
        observer.range(QScheme())
    observer(data())
    fresh(data())
    scheme = QScheme()
    for a, b in zip(observer.range(scheme), fresh.range(scheme), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", MEASURING)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("axis", [None, 1])
def test_values_that_are_not_finite_are_noticed(name: str, bad: float, axis: int | None) -> None:
    if name in PER_TENSOR_ONLY and axis is not None:
        pytest.skip("one range per tensor")
    observer = build_observer(name, ch_axis=axis)
    observer(data())
    assert not observer.non_finite()
    x = data(1)
    x[3, 2, 1] = bad
    observer(x)
    observer(data(2))
    assert observer.non_finite()
    assert all(torch.isfinite(v).all() for v in observer.range(QScheme(ch_axis=observer.ch_axis)))
    assert x[3, 2, 1].isnan() or x[3, 2, 1].isinf(), "the input was changed"


def buffer_bytes(observer: Observer) -> int:
    return sum(b.numel() * b.element_size() for b in observer.buffers())


@pytest.mark.parametrize("name", MEASURING)
def test_memory_does_not_grow_with_the_samples(name: str) -> None:
    observer = build_observer({"type": name, "max_values": 100} if name == "RecordingObserver" else name)
    for seed in range(3):
        observer(data(seed))
    few = buffer_bytes(observer)
    for seed in range(40):
        observer(data(seed))
    assert buffer_bytes(observer) == few
    assert observer.count == 43 * 6


@pytest.mark.parametrize("name", MEASURING)
def test_observing_takes_any_float_and_no_gradient(name: str) -> None:
    observer, exact = build_observer(name), build_observer(name)
    x = data().bfloat16().requires_grad_()
    assert observer(x) is x
    exact(x.detach().float())
    assert not any(b.requires_grad for b in observer.buffers())
    for a, b in zip(observer.range(QScheme()), exact.range(QScheme()), strict=True):
        assert torch.equal(a, b)
    observer(torch.zeros(0, 4, 5))
    assert observer.count == 6


@pytest.mark.parametrize("name", MEASURING)
def test_what_was_observed_may_be_overwritten(name: str) -> None:
    observer, other = build_observer(name), build_observer(name)
    x = data()
    other(x.clone())
    observer(x)
    x.fill_(1e6)
    for a, b in zip(observer.range(QScheme()), other.range(QScheme()), strict=True):
        assert torch.equal(a, b)


def test_channels_that_were_not_kept_apart_are_refused() -> None:
    observer = build_observer("MinMaxObserver")
    observer(data())
    with pytest.raises(RecipeError, match="channel of axis 1, but this MinMaxObserver has ch_axis=None; build the obs"):
        observer.range(QScheme(ch_axis=1))
    with pytest.raises(DataError, match=r"expected a tensor with an axis 3, got shape \(6, 4, 5\)"):
        build_observer("MinMaxObserver", ch_axis=3)(data())


@pytest.mark.parametrize("name", sorted(set(MEASURING) - PER_TENSOR_ONLY))
def test_another_number_of_channels_is_refused(name: str) -> None:
    observer = build_observer(name, ch_axis=0)
    observer(data())
    with pytest.raises(DataError, match=r"expected 6 channels on axis 0, .* got 5 in a tensor of shape \(5, 4, 5\)"):
        observer(data()[:5])


@pytest.mark.parametrize("name", sorted(RANGELESS))
def test_passive_observers_have_no_range_and_say_why(name: str) -> None:
    observer = build_observer(name)
    x = torch.full((2,), float("nan"))
    assert observer(x) is x
    with pytest.raises(RecipeError, match=f"{name} has no range: .{{20,}}"):
        observer.range(QScheme())


def test_fixed_qparams_come_back_from_their_range() -> None:
    for scheme, zero_point in [
        (QScheme(), 7),
        (QScheme(signed=True, symmetric=True), 0),
        (QScheme(symmetric=True), 128),
    ]:
        observer = FixedQParamsObserver(scale=0.03, zero_point=zero_point)
        observer(data() * 1e9)
        q = compute_qparams(*observer.range(scheme), scheme)
        assert q.scale.item() == pytest.approx(0.03, rel=1e-6)
        assert q.zero_point.item() == zero_point
    channels = FixedQParamsObserver(scale=[0.1, 0.2], zero_point=[1, 2], ch_axis=0)
    assert compute_qparams(*channels.range(QScheme(ch_axis=0)), QScheme(ch_axis=0)).zero_point.tolist() == [1, 2]
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(RecipeError, match="positive, finite scale"):
            FixedQParamsObserver(scale=bad)


def test_recording_keeps_the_first_values_and_the_whole_range() -> None:
    observer = RecordingObserver(max_values=5)
    observer(torch.tensor([1.0, 2.0, 3.0]))
    observer(torch.tensor([4.0, 5.0, 60.0]))
    assert observer.values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert observer.range(QScheme())[1].item() == 60.0
