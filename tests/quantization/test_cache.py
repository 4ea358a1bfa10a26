"""Statistics on disk: the same run goes on from them, another one does not, and damage costs a pass and no more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.scheme import QScheme
from razordeploy.quantization.cache import Pass, StatisticsCache, model_digest, statistics_key
from razordeploy.quantization.plan import ObserverSpec, QuantPlan, QuantPoint
from razordeploy.quantization.statistics import collect


def model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))


def captured(seed=0):
    return capture(model(seed), (torch.zeros(2, 3, 8, 8),))


def plan(graph, observer="MinMaxObserver", options=()):
    spec = ObserverSpec(type=observer, options=options)
    names = [n.name for n in graph.graph.nodes if n.op in {"placeholder", "call_function"}]
    points = tuple(
        QuantPoint(node=n, users=("x",), kind="activation", scheme=QScheme(), group=n, observer=spec) for n in names
    )
    return QuantPlan(backend="test", points=points, ops=())


BATCHES = [(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(i)),) for i in range(6)]


def ranges(done):
    return {key: [t.tolist() for t in o.range(QScheme())] for key, o in done.statistics.observers.items()}


@pytest.fixture
def graph():
    return captured()


@pytest.mark.parametrize(
    "observer", ["MinMaxObserver", "HistogramObserver", "PercentileObserver", "MeanMinMaxObserver"]
)
def test_goes_on_to_the_bit(graph, tmp_path, observer):
    plans = [plan(graph, observer)]
    whole = Pass(statistics=collect(graph, plans, BATCHES), complete=True)
    cache = StatisticsCache(tmp_path, "k")
    first = Pass(statistics=collect(graph, plans, BATCHES[:2]), batches=2)
    cache.save(first)
    saved = cache.load(plans)
    assert (saved.batches, saved.complete, saved.statistics.samples) == (2, False, 8)
    saved.statistics = collect(graph, plans, BATCHES[2:], statistics=saved.statistics)
    assert ranges(saved) == ranges(whole)


def test_a_finished_pass_replaces_the_unfinished_one(graph, tmp_path):
    plans, cache = [plan(graph)], StatisticsCache(tmp_path, "k")
    cache.save(Pass(statistics=collect(graph, plans, BATCHES[:1]), batches=1))
    done = Pass(statistics=collect(graph, plans, BATCHES), batches=6, complete=True, notes=["odd"], seen={"a", "b"})
    cache.save(done)
    assert [p.name for p in tmp_path.iterdir()] == ["statistics-k.pt"]
    found = cache.load(plans)
    assert (found.complete, found.notes, found.seen, found.batches) == (True, ["odd"], {"a", "b"}, 6)
    assert ranges(found) == ranges(done)


def test_another_observer_is_not_covered_and_does_not_forget_the_first(graph, tmp_path):
    one, two = [plan(graph)], [plan(graph, "HistogramObserver")]
    cache = StatisticsCache(tmp_path, "k")
    cache.save(Pass(statistics=collect(graph, one, BATCHES), complete=True))
    assert cache.load(two) is None
    assert cache.load(one + two) is None
    # An interrupted pass for the second leaves the first's.
    cache.save(Pass(statistics=collect(graph, two, BATCHES[:1]), batches=1))
    assert cache.load(one).complete
    assert not cache.load(two).complete
    cache.save(Pass(statistics=collect(graph, two, BATCHES), complete=True))
    assert cache.load(one).complete
    assert cache.load(two).complete
    assert cache.load(one + two).complete


def test_options_of_an_observer_count(graph, tmp_path):
    low, high = ([plan(graph, "PercentileObserver", (("percentile", p),))] for p in (99.0, 99.9))
    cache = StatisticsCache(tmp_path, "k")
    cache.save(Pass(statistics=collect(graph, low, BATCHES), complete=True))
    assert cache.load(low) is not None
    assert cache.load(high) is None


@pytest.mark.parametrize("content", [b"", b"junk", None, [1], {"observers": {}}, {"observers": 3}, {}])
def test_damage_costs_a_new_pass(graph, tmp_path, content):
    plans, cache = [plan(graph)], StatisticsCache(tmp_path, "k")
    cache.save(Pass(statistics=collect(graph, plans, BATCHES), complete=True))
    if isinstance(content, bytes):
        cache.path.write_bytes(content)
    elif content is None:
        cache.path.write_bytes(cache.path.read_bytes()[:-200])
    else:
        torch.save(content, cache.path)
    assert cache.load(plans) is None
    cache.save(Pass(statistics=collect(graph, plans, BATCHES), complete=True))
    assert cache.load(plans).complete


def test_state_of_another_version(graph, tmp_path):
    plans, cache = [plan(graph)], StatisticsCache(tmp_path, "k")
    cache.save(Pass(statistics=collect(graph, plans, BATCHES), complete=True))
    saved = torch.load(cache.path, weights_only=True)
    name = next(iter(saved["observers"]))
    saved["observers"][name] = {"renamed": torch.zeros(3)}
    torch.save(saved, cache.path)
    assert cache.load(plans) is None


class TestKey:
    def test_same_model_same_key(self):
        assert statistics_key(captured(), "data") == statistics_key(captured(), "data")

    def test_layout_does_not_count(self):
        last = capture(model().to(memory_format=torch.channels_last), (torch.zeros(2, 3, 8, 8),))
        assert model_digest(last) == model_digest(captured())

    def test_weights_data_and_structure_count(self):
        torch.manual_seed(0)
        other = capture(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), (torch.zeros(2, 3, 8, 8),))
        keys = {
            statistics_key(captured(), "data"),
            statistics_key(captured(), "other"),
            statistics_key(captured(1), "data"),
            statistics_key(other, "data"),
        }
        assert len(keys) == 4

    def test_scalar_and_empty_buffers(self):
        class Scaled(nn.Module):
            def __init__(self, value: float) -> None:
                super().__init__()
                self.register_buffer("scale", torch.tensor(value))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x * self.scale

        digests = {model_digest(capture(Scaled(v), (torch.zeros(2, 3),))) for v in (1.5, 2.5)}
        assert len(digests) == 2
