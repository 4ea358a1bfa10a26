"""Coverage, parity, latency and size on runners whose answers are known."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from torch import nn

from razordeploy.backends.base import RuntimeOp
from razordeploy.backends.harness import Parity, coverage, in_batches_of, interleaved_latency, size_bytes, torch_runner
from razordeploy.capture.export import capture
from razordeploy.capture.fast import fast_copy
from razordeploy.quantization.plan import PlannedOp


def planned(node, int8=True, **options):
    return PlannedOp(node=node, kind="conv2d", module=f"m.{node}", int8=int8, **options)


class TestCoverage:
    def test_counts_and_reasons(self):
        ops = [planned("a"), planned("b"), planned("c"), planned("d", int8=False, reason="its output is float")]
        runtime = [
            RuntimeOp(name="fused", type="Convolution", precision="u8", origins=("a", "relu")),
            RuntimeOp(name="b", type="Convolution", precision="f32"),
            RuntimeOp(name="d", type="Add", precision="f32"),
        ]
        found = coverage(ops, runtime)
        assert (found.planned, found.int8) == (3, 1)
        assert [(f.node, f.reason) for f in found.float_ops] == [
            ("m.b", "planned as int8, but the engine runs Convolution in f32"),
            ("m.c", "the engine's graph does not name it: it was folded away or merged"),
            ("m.d", "its output is float"),
        ]

    def test_int8_op_that_was_not_planned_does_not_count(self):
        found = coverage([planned("a", int8=False, reason="skipped")], [RuntimeOp(name="a", type="C", precision="i8")])
        assert (found.planned, found.int8) == (0, 0)

    @pytest.mark.parametrize("suffix", ["_token_3", "_nhwc", "/WithoutBiases", "/fq_weights_1", "_nhwc_token_12"])
    def test_engines_own_suffixes(self, suffix):
        assert coverage([planned("a")], [RuntimeOp(name=f"a{suffix}", type="C", precision="i8")]).int8 == 1

    @pytest.mark.parametrize(
        ("precision", "int8"), [("u8", 1), ("i8", 1), ("f32", 0), ("bf16", 0), ("i32", 0), ("", 0)]
    )
    def test_precisions(self, precision, int8):
        assert coverage([planned("a")], [RuntimeOp(name="a", type="C", precision=precision)]).int8 == int8


class TestParity:
    def test_against_numpy(self):
        rng = np.random.default_rng(0)
        a = rng.standard_normal((40, 7)).astype(np.float32)
        b = a + rng.standard_normal((40, 7)).astype(np.float32) * 0.01
        parity = Parity(step=0.02)
        for start in (0, 10, 30):
            end = {0: 10, 10: 30, 30: 40}[start]
            parity.update(a[start:end], b[start:end])
        result = parity.result()
        x, y = a.astype(np.float64), b.astype(np.float64)
        assert result["max_abs"] == pytest.approx(np.abs(x - y).max())
        assert result["sqnr_db"] == pytest.approx(10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()))
        assert result["steps"] == pytest.approx(np.abs(x - y).max() / 0.02)

    def test_without_a_grid_the_range_has_255_steps(self):
        parity = Parity()
        parity.update(np.array([[0.0, 2.55]]), np.array([[0.0, 2.53]]))
        assert parity.result()["steps"] == pytest.approx(2)

    def test_identical(self):
        parity = Parity()
        parity.update((np.ones((2, 3)), np.zeros((2, 1))), (np.ones((2, 3)), np.zeros((2, 1))))
        assert parity.result() == {"max_abs": 0.0, "sqnr_db": None, "steps": 0.0}

    def test_another_number_of_outputs(self):
        with pytest.raises(ValueError, match="shorter"):
            Parity().update((np.ones(2), np.ones(2)), np.ones(2))


class TestLatency:
    def test_percentiles(self, monkeypatch):
        # A clock that makes call i of "slow" take i ms and each of "fast" 1 ms.
        calls = {"fast": 0, "slow": 0}
        now = [0]

        def runner(name):
            def run(x):
                calls[name] += 1
                now[0] += 1_000_000 * (1 if name == "fast" else max(calls[name] - 3, 0))

            return run

        monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
        monkeypatch.setattr(time, "perf_counter", lambda: now[0] / 1e9)
        found = interleaved_latency(
            {name: runner(name) for name in calls}, [np.zeros((4, 2))], seconds=0, min_calls=100
        )
        assert found["fast"].p50_ms == found["fast"].p99_ms == 1
        assert found["slow"].samples_ms == tuple(range(1, 101))
        assert found["slow"].p50_ms == pytest.approx(50.5)
        assert found["slow"].p90_ms == pytest.approx(np.percentile(range(1, 101), 90))
        assert found["slow"].throughput == pytest.approx(4000 / 50.5)

    def test_in_turns(self):
        order = []
        runners = {name: lambda x, name=name: order.append(name) for name in "ab"}
        interleaved_latency(runners, [np.zeros((1, 1))], seconds=0, min_calls=5)
        assert order[:6] == list("aaabbb")  # the warm-up
        rounds = ["".join(order[i : i + 2]) for i in range(6, len(order), 2)]
        assert len(rounds) == 5
        assert set(rounds) == {"ab", "ba"}  # neither always runs behind the other


def test_size_sums_a_roles_files(tmp_path):
    files = {"engine": "model.xml", "engine_weights": "model.bin", "float": "float.xml", "plan": "plan.json"}
    for count, name in enumerate(files.values(), 1):
        (tmp_path / name).write_bytes(b"x" * 10**count)
    assert size_bytes(tmp_path, files, "engine") == 110
    assert size_bytes(tmp_path, files, "float") == 1000


class TestFixedBatch:
    @pytest.mark.parametrize(("size", "count"), list(itertools.product([1, 4], [1, 3, 4, 9])))
    def test_any_batch(self, size, count):
        seen = []

        def run(x, y):
            seen.append(len(x))
            return x + y, x.sum(1)

        x, y = np.random.default_rng(0).standard_normal((2, count, 3))
        first, second = in_batches_of(size, run)(x, y)
        assert set(seen) == {size}
        assert np.array_equal(first, x + y)
        assert np.array_equal(second, x.sum(1))

    def test_one_output_comes_back_bare(self):
        assert np.array_equal(in_batches_of(2, lambda x: x * 2)(np.ones((3, 1))), np.full((3, 1), 2.0))

    def test_dynamic_models_are_left_as_they_are(self):
        assert in_batches_of(None, abs) is abs


class Shared(nn.Module):
    """Two convolutions over one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


def test_torch_runner_computes_and_leaves_the_graph_alone():
    model = Shared()
    module = capture(model, (torch.zeros(2, 3, 8, 8),)).graph_module
    parameters = {name: (id(p), p.stride()) for name, p in module.named_parameters()}
    assert id(model.a.weight) in {identity for identity, _ in parameters.values()}
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        expected = model(x).numpy()
    np.testing.assert_allclose(torch_runner(module)(x.numpy()), expected, rtol=1e-5, atol=1e-6)
    assert {name: (id(p), p.stride()) for name, p in module.named_parameters()} == parameters
    copied = [p for p in fast_copy(module).parameters() if p.dim() == 4]
    assert len(copied) == 1
    assert copied[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(copied[0], model.a.weight)
