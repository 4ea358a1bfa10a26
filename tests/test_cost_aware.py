"""Placement by measured cost: which groups are proposed, and which engines decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import razordeploy as rd
from razordeploy import cost_aware
from razordeploy.backends.base import Latency, RuntimeOp, TimedOp
from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.cost_aware import proposals, times_by_node
from razordeploy.errors import RecipeError


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(8, 8, 3, padding=1, groups=8), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 1)
        )
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


IMAGES = torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def test_the_key_takes_two_values() -> None:
    assert QuantizeConfig.parse({"placement": "measured"}, "test").placement == "measured"
    with pytest.raises(RecipeError, match="'int8' or 'measured'"):
        QuantizeConfig.parse({"placement": "fastest"}, "test")


def test_a_kernel_counts_for_its_planned_operation_and_a_conversion_for_what_it_converts() -> None:
    captured = capture(Net().eval(), (IMAGES[:2],))
    names = [n.name for n in captured.graph.nodes if n.op == "call_function"]
    conv, depthwise, relu = names[:3]
    timed = [
        TimedOp(op=RuntimeOp(name=f"{relu}.Relu.3", type="Conv", precision="u8", origins=(depthwise, "Relu")), ms=2.0),
        TimedOp(op=RuntimeOp(name=f"{conv}.{conv}.quantize", type="FakeQuantize", precision="f32"), ms=0.5),
        TimedOp(op=RuntimeOp(name=f"{conv}_nhwc", type="Reorder", precision="f32", origins=(conv,)), ms=0.25),
        TimedOp(op=RuntimeOp(name="of nobody", type="Reorder", precision="f32"), ms=4.0),
    ]
    assert times_by_node(captured, {conv, depthwise}, timed) == {depthwise: 2.0, conv: 0.75}


def test_groups_are_kinds_sizes_and_parts_of_the_model() -> None:
    captured = capture(Net().eval(), (IMAGES[:2],))
    nodes = {n.name: n for n in captured.graph.nodes if n.op == "call_function"}
    conv, depthwise, _, pointwise = list(nodes)[:4]
    planned = {conv, depthwise, pointwise, "linear"}
    groups = {g.name: g for g in proposals(captured, planned, {depthwise: 3.0, pointwise: 1.0}, {depthwise: 2.0})}
    assert groups["conv2d"].ops == {conv, pointwise}
    assert groups["body"].ops == {depthwise, pointwise}
    assert (groups["body"].int8_ms, groups["body"].float_ms) == (4.0, 2.0)
    by_kind = next(g for name, g in groups.items() if name.startswith("depthwise_conv2d"))
    assert by_kind.ops == {depthwise}
    assert len({g.ops for g in groups.values()}) == len(groups)
    assert not any(g.ops == planned for g in groups.values())


def engine_times(monkeypatch: pytest.MonkeyPatch, ratios: list[list[float]]) -> None:
    """Let the comparisons of engines give these latency ratios, one list a comparison."""
    left = iter(ratios)

    def timed(runners: dict[str, object], inputs: object, *, seconds: float) -> dict[str, Latency]:
        found = [1.0, *next(left)]
        assert len(found) == len(runners)
        assert all(callable(r) for r in runners.values())
        made = zip(runners, found, strict=True)
        return {k: Latency(p50_ms=v, p90_ms=v, p99_ms=v, throughput=1.0, samples_ms=(v, v)) for k, v in made}

    monkeypatch.setattr(cost_aware, "interleaved_latency", timed)


def quantized(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The report's entry of a net whose depthwise convolution and whose head are proposed."""
    groups = [
        cost_aware.Group(name="depthwise", ops=frozenset({"conv2d_1"}), int8_ms=2.0, float_ms=1.0),
        cost_aware.Group(name="head", ops=frozenset({"linear"}), int8_ms=2.0, float_ms=1.5),
    ]
    real = cost_aware._Search._groups
    monkeypatch.setattr(cost_aware._Search, "_groups", lambda self: (real(self), groups)[1])
    once = (x for x in IMAGES.split(4))
    rd.ptq(
        Net().eval(), once, example_inputs=(IMAGES[:2],), backend=backend, out_dir=tmp_path,
        quantize={"placement": "measured"},
    )  # fmt: skip
    entry: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())["backends"][backend]
    return entry


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_engines_show_to_be_slower_stays_float(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(backend, reason=f"the engine is of {backend}")
    # Alone; the better one, and both; the best of these again.
    engine_times(monkeypatch, [[0.8, 1.3], [0.8], [0.85]])
    entry = quantized(backend, tmp_path, monkeypatch)
    assert entry["placement"]["kept"] == ["depthwise"]
    assert entry["placement"]["ratio"] == pytest.approx(0.85)
    assert [t["group"] for t in entry["placement"]["tried"]] == ["depthwise", "head"]
    reasons = {f["op"]: f["reason"] for f in entry["coverage"]["float"]}
    assert reasons["depthwise_conv2d"].startswith(
        "float: faster on this machine: 'depthwise' takes 1 ms in float, 2 ms"
    )
    assert entry["coverage"]["int8"] == entry["coverage"]["planned"] > 0
    assert entry["seconds"]["measure_placement"] > 0
    engine = rd.load_engine(tmp_path / backend)
    expected = engine(IMAGES[:2].numpy())
    assert entry["parity"]["sqnr_db"] is None or entry["parity"]["sqnr_db"] > 30
    assert expected.shape == (2, 4)
    assert not list(tmp_path.glob(".placement-*"))


@pytest.mark.parametrize(
    ("ratios", "tried"),
    [([[0.99, 1.2]], 2), ([[0.8, 0.9], [0.8, 0.7], [1.0]], 3)],
    ids=["no group is faster", "the best is not faster again"],
)
def test_what_does_not_win_again_changes_nothing(
    ratios: list[list[float]], tried: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    engine_times(monkeypatch, ratios)
    entry = quantized("onnxruntime", tmp_path, monkeypatch)
    assert entry["placement"] == {"tried": entry["placement"]["tried"], "kept": [], "float": 0, "ratio": None}
    assert len(entry["placement"]["tried"]) == tried
    assert not any("faster on this machine" in f["reason"] for f in entry["coverage"]["float"])


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_engines_tell_the_time_of_every_planned_operation(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend, reason=f"the engine is of {backend}")
    made = rd.ptq(Net().eval(), [IMAGES], example_inputs=(IMAGES[:2],), backend=backend, out_dir=tmp_path)
    profile = find_backend(backend).profile
    assert profile is not None
    captured = capture(Net().eval(), (IMAGES[:2],))
    planned = {"conv2d", "conv2d_1", "conv2d_2", "linear"}
    for role in ("engine", "float"):
        timed = profile(tmp_path / backend, dict(made.files), role, 1, [IMAGES[:2].numpy()])
        found = times_by_node(captured, planned, timed)
        assert planned <= set(found), role
        assert all(ms >= 0 for ms in found.values())


def test_a_backend_whose_engines_do_not_tell_times_says_so(tmp_path: Path) -> None:
    rd.ptq(
        Net().eval(), [IMAGES], example_inputs=(IMAGES[:2],), backend="academic", out_dir=tmp_path,
        quantize={"placement": "measured"},
    )  # fmt: skip
    report = json.loads((tmp_path / "report.json").read_text())
    assert any("do not tell times" in note for note in report["warnings"])
    assert "placement" not in report["backends"]["academic"]
