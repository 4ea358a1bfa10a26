"""The run itself: what is measured once, what one backend's failure costs, where it may be stopped."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from razordeploy import each_backend
from razordeploy.api import build_report
from razordeploy.artifact import Artifact
from razordeploy.backends.registry import find_backend
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.config.sections import DeployConfig
from razordeploy.data.batch import Batch
from razordeploy.errors import BackendError, DataError, InternalError, MissingDependency, RazorDeployError, StorageError
from razordeploy.job import Progress, PTQJob
from razordeploy.pipeline import run_ptq
from razordeploy.quantization.calibrate import Interrupted, of_size, sample_digests
from razordeploy.report.write import remove_report, write_report


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def batch(seed: int, count: int = 16) -> Batch:
    x = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return Batch((x,), net().eval()(x).argmax(1))


class Data:
    """A stream that counts how often it is opened and read."""

    def __init__(self, *seeds: int) -> None:
        self.seeds, self.opened, self.read = seeds, 0, 0

    def __call__(self):
        self.opened += 1
        for seed in self.seeds:
            self.read += 1
            yield batch(seed)


@pytest.fixture
def job(tmp_path):
    """``job(**changes) -> PTQJob`` for ONNX Runtime, quick."""

    def make(**changes):
        options = {
            "model": net(),
            "example_inputs": (torch.zeros(2, 3, 8, 8),),
            "calibration": Data(0, 1, 2),
            "evaluation": Data(7, 8),
            "backends": ["onnxruntime"],
            "work_dir": tmp_path,
            "deploy": DeployConfig(max_drop=100.0),
            "benchmark_seconds": 0,
        }
        return PTQJob(**{**options, **changes})

    return make


@pytest.fixture
def replace_backend(monkeypatch):
    """``replace_backend(name, export=...)`` for this test."""
    real, changed = find_backend, {}

    def find(name):
        found = changed.get(name)
        if isinstance(found, Exception):
            raise found
        return found or real(name)

    monkeypatch.setattr(each_backend, "find_backend", find)

    def change(name, error=None, **fields):
        changed[name] = error or dataclasses.replace(real(name), **fields)

    return change


def test_metrics_are_those_of_the_three_models(job):
    result = run_ptq(job(backends=["onnxruntime", "openvino"]))
    for entry in result.backends.values():
        assert entry["metrics"]["float"] == {"top1": 100.0, "samples": 32}
        engine = entry["metrics"]["engine"]["top1"]
        assert entry["gap"]["float_to_engine"] == pytest.approx(100 - engine)
        assert entry["parity"]["steps"] < 1.5
    x, labels = batch(7).inputs[0].numpy(), batch(7).target.numpy()
    from razordeploy.backends.loaded import Engine

    hits = [
        (Engine(result.artifacts["openvino"])(b.inputs[0].numpy()).argmax(1) == b.target.numpy()).sum()
        for b in Data(7, 8)()
    ]
    assert result.backends["openvino"]["metrics"]["engine"]["top1"] == pytest.approx(100 * sum(hits) / 32)
    assert len(x) == len(labels) == 16


def test_calibration_is_read_once_for_all_backends(job):
    data = Data(0, 1, 2)
    run_ptq(job(calibration=data, backends=["onnxruntime", "openvino"]))
    # Once whole, and once per backend its first batch for the layers' SQNR.
    assert (data.opened, data.read) == (3, 5)


def test_cached_pass_reads_nothing(job):
    first = run_ptq(job(data_fingerprint="d"))
    data = Data(0, 1, 2)
    second = run_ptq(job(data_fingerprint="d", calibration=data))
    assert data.read == 1  # for the layers' SQNR
    assert first.artifacts["onnxruntime"].id == second.artifacts["onnxruntime"].id
    assert second.backends["onnxruntime"]["calibration"]["samples"] == 48


def test_labels_are_not_needed(job):
    entry = run_ptq(job(evaluation=None)).backends["onnxruntime"]
    assert "metrics" not in entry
    assert entry["passed"] is True
    assert entry["parity"]["max_abs"] >= 0


@pytest.mark.parametrize(
    "metric", [lambda outputs, targets: {"f1": float((outputs.argmax(1) == targets).mean() * 100)}]
)
def test_metric_of_the_callers(job, metric):
    entry = run_ptq(job(metric=metric)).backends["onnxruntime"]
    assert entry["metrics"]["float"]["f1"] == 100
    assert entry["gap"]["float_to_engine"] == pytest.approx(100 - entry["metrics"]["engine"]["f1"])


class TestFailures:
    @pytest.mark.parametrize(
        ("raised", "kind", "text", "code"),
        [
            (BackendError("it refuses"), BackendError, "it refuses", 2),
            (ZeroDivisionError("by\nzero"), InternalError, "internal: ZeroDivisionError: by zero; run with", 70),
            (OSError(28, "No space left on device", "f"), StorageError, "cannot write f: the disk is full", 5),
        ],
    )
    def test_one_of_two(self, job, replace_backend, tmp_path, raised, kind, text, code):
        def export(_):
            raise raised

        replace_backend("openvino", export=export)
        result = run_ptq(job(backends=["openvino", "onnxruntime"]))
        assert list(result.artifacts) == ["onnxruntime"]
        assert isinstance(result.errors["openvino"], kind)
        assert text in str(result.errors["openvino"])
        assert result.backends["openvino"] == {
            "passed": False,
            "error": str(result.errors["openvino"]),
            "exit_code": code,
        }
        assert sorted(p.name for p in tmp_path.iterdir()) == ["onnxruntime"]

    def test_all(self, job, replace_backend, tmp_path):
        def export(_):
            raise BackendError("it refuses")

        replace_backend("openvino", export=export)
        replace_backend("onnxruntime", error=MissingDependency("no onnxruntime"))
        with pytest.raises(MissingDependency) as caught:
            run_ptq(job(backends=["openvino", "onnxruntime"]))
        assert str(caught.value) == "onnxruntime: no onnxruntime; openvino: it refuses"
        assert caught.value.exit_code == 3
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_engine_stays(self, job, replace_backend):
        kept = run_ptq(job()).artifacts["onnxruntime"]

        def export(_):
            raise BackendError("it refuses")

        replace_backend("onnxruntime", export=export)
        with pytest.raises(BackendError, match="it refuses"):
            run_ptq(job())
        Artifact.load(kept.path).verify()

    def test_nan_in_the_weights(self, job):
        model = net()
        model[0].weight.data[0] = torch.nan
        with pytest.raises(RazorDeployError, match="NaN"):
            run_ptq(job(model=model))

    def test_data_error_names_the_stream(self, job):
        with pytest.raises(DataError, match="^calibration data: batch 0: "):
            run_ptq(job(calibration=lambda: [Batch((torch.zeros(4, 1, 8, 8),), None)]))
        with pytest.raises(DataError, match="^evaluation data: batch 0: "):
            run_ptq(job(evaluation=lambda: [Batch((torch.zeros(4, 1, 8, 8),), torch.zeros(4).long())]))

    def test_fake_engine_that_answers_nonsense_fails_the_check(self, job, replace_backend):
        real = find_backend("onnxruntime")

        def load(*args):
            runner = real.load(*args)
            return type("Wrong", (), {"__call__": lambda self, x: -runner(x), "runtime_ops": runner.runtime_ops})()

        replace_backend("onnxruntime", load=load)
        entry = run_ptq(job(deploy=DeployConfig(max_drop=1.0))).backends["onnxruntime"]
        assert entry["passed"] is False
        assert entry["parity"]["steps"] > 10


class TestStop:
    @pytest.mark.parametrize("fingerprint", ["d", None])
    def test_at_every_step(self, job, tmp_path, fingerprint):
        """Asked to stop at its n-th question, a run leaves no engine; asked never, it makes one."""
        asked = []
        run_ptq(job(progress=Progress(stop=lambda: bool(asked.append(1))), data_fingerprint=fingerprint))
        total = len(asked)
        assert total > 10
        import shutil

        for n in range(1, total + 1, 3):
            shutil.rmtree(tmp_path)
            tmp_path.mkdir()
            count = iter(range(1, 10**6))
            with pytest.raises(Interrupted) as caught:
                run_ptq(
                    job(progress=Progress(stop=lambda n=n, count=count: next(count) >= n), data_fingerprint=fingerprint)
                )
            assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == []
            assert ("kept" in str(caught.value)) is True
            if fingerprint is None:
                assert str(caught.value) == "nothing is kept"

    def test_no_engine_stands_beside_the_report_of_another(self, tmp_path):
        """Stopped at its n-th question, a second run leaves the old report with the old engines, or no report."""

        def run(stop, seed):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
            job = PTQJob(
                model=model,
                example_inputs=(torch.zeros(2, 3, 8, 8),),
                calibration=Data(0),
                backends=["openvino", "onnxruntime"],
                work_dir=tmp_path,
                benchmark_seconds=0,
                progress=Progress(stop=stop),
                before_replacing=lambda: remove_report(tmp_path),
            )
            result = run_ptq(job)
            write_report(build_report(result, job.backends, model="net"), tmp_path)
            return {name: artifact.id for name, artifact in result.artifacts.items()}

        asked = []
        before = run(lambda: bool(asked.append(1)), seed=0)
        described = (tmp_path / "report.json").read_bytes()
        found = set()
        for n in (*range(2, len(asked), 4), len(asked)):
            count = iter(range(1, 10**6))
            with pytest.raises(Interrupted):
                run(lambda n=n, count=count: next(count) >= n, seed=1)
            replaced = tuple(b for b, old in before.items() if Artifact.load(tmp_path / b).id != old)
            reports = sorted(p.name for p in tmp_path.glob("report.*"))
            found.add(replaced)
            if replaced:
                assert reports == []
            else:
                assert reports == ["report.html", "report.json"]
                assert (tmp_path / "report.json").read_bytes() == described
        assert found == {(), ("openvino",)}

    def test_interrupted_statistics_go_on_to_the_bit(self, job, tmp_path):
        whole = run_ptq(job(work_dir=tmp_path / "whole", data_fingerprint="d")).artifacts["onnxruntime"]
        read = []
        with pytest.raises(Interrupted, match="32 calibration samples are kept"):
            run_ptq(
                job(
                    data_fingerprint="d",
                    progress=Progress(advance=lambda done, total: read.append(done), stop=lambda: read[-1:] == [32]),
                )
            )
        parts = run_ptq(job(data_fingerprint="d")).artifacts["onnxruntime"]
        assert parts.sha256 == whole.sha256


class TestStreams:
    def test_batches_of_one_size(self):
        parts = [batch(i, count) for i, count in enumerate((3, 5, 1, 2))]
        cut = list(of_size(iter(parts), 4))
        assert [len(b) for b in cut] == [4, 4]
        whole = torch.cat([b.inputs[0] for b in parts])
        assert torch.equal(torch.cat([b.inputs[0] for b in cut]), whole[:8])

    def test_digests(self):
        one, other = batch(0), batch(1)
        assert len(sample_digests(one)) == 16
        assert sample_digests(one) == sample_digests(batch(0))
        assert not sample_digests(one) & sample_digests(other)
        assert sample_digests(one.head(3)) < sample_digests(one)
        large = torch.zeros(2, 3, 224, 224)
        large[1, :, 10:60] = 1
        assert len(sample_digests(Batch((large,), None))) == 2

    @pytest.mark.parametrize(("shared", "warned"), [(0, False), (1, True), (3, True)])
    def test_overlap(self, job, shared, warned):
        calibration = Data(*range(7, 7 + shared), *range(3 - shared))
        notes = run_ptq(job(calibration=calibration, evaluation=Data(7, 8, 9))).warnings
        text = f"{16 * shared} of 48 calibration samples are also evaluated on"
        assert any(n.startswith(text) for n in notes) is warned

    def test_zeros_are_one_warning(self, job):
        zeros = Batch((torch.zeros(16, 3, 8, 8),), torch.zeros(16).long())
        notes = run_ptq(job(calibration=lambda: [zeros] * 3, evaluation=Data(7))).warnings
        assert notes == [
            "calibration data: batch 0: all 3072 values are zero; is the preprocessing right? (and 2 more batches)"
        ]


def test_skipped_layers_are_listed_with_the_reason(job):
    quantize = QuantizeConfig.parse({"skip": ["4"]}, "r")
    entry = run_ptq(job(quantize=quantize)).backends["onnxruntime"]
    reasons = {op["node"]: op["reason"] for op in entry["coverage"]["float"]}
    assert reasons["4"] == "the recipe's skip names '4'"


def test_manifest_metrics_are_the_reports(job):
    result = run_ptq(job())
    artifact, entry = result.artifacts["onnxruntime"], result.backends["onnxruntime"]
    assert artifact.metrics["metrics"] == entry["metrics"]
    assert artifact.metrics["gap"] == entry["gap"]
    assert np.isclose(artifact.metrics["parity"]["max_abs"], entry["parity"]["max_abs"])
