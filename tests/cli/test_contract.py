"""Verbs, options, files and report fields that other programs rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from razordeploy.artifact import Artifact
from razordeploy.report.write import read_report
from tests.cli.conftest import tree


@pytest.fixture(scope="module")
def run(server, digits, tmp_path_factory):
    """The digits recipe on both engines: the folder, what was printed, the report."""
    folder = tmp_path_factory.mktemp("contract")
    argv = ("ptq", "ptq/digits_resnet8.py", "--backend", "openvino,onnxruntime", "--checkpoint", str(digits))
    result = server.run((*argv, "--benchmark-seconds", "0.2", "--set", "seed=3", "calibration.num_samples=96"), folder)
    assert result.code == 0, result.err
    return folder, result, json.loads((folder / "work_dirs" / "digits_resnet8" / "report.json").read_text())


class TestReport:
    def test_default_work_dir(self, run):
        folder, _, _ = run
        assert {p.name for p in (folder / "work_dirs" / "digits_resnet8").iterdir()} == {
            *(".lock", "cache", "onnxruntime", "openvino", "report.html", "report.json")
        }

    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    def test_fields(self, run, backend):
        entry = run[2]["backends"][backend]
        for side in ("float", "simulated", "engine"):
            assert 80 < entry["metrics"][side]["top1"] <= 100
        gap = entry["gap"]
        assert set(gap) == {"float_to_simulated", "simulated_to_engine", "float_to_engine"}
        assert gap["float_to_engine"] == pytest.approx(gap["float_to_simulated"] + gap["simulated_to_engine"])
        top1 = {side: figures["top1"] for side, figures in entry["metrics"].items()}
        assert gap["float_to_engine"] == pytest.approx(top1["float"] - top1["engine"])
        coverage = entry["coverage"]
        assert 0 < coverage["int8"] <= coverage["planned"]
        assert all(set(op) == {"node", "op", "reason"} and op["reason"] for op in coverage["float"])
        assert set(entry["parity"]) == {"max_abs", "sqnr_db", "steps"}
        assert entry["parity"]["steps"] >= 0
        for side in ("float", "engine"):
            latency = entry["latency_ms"][side]
            assert 0 < latency["p50"] <= latency["p90"] <= latency["p99"]
            files = [p for p in Path(run[0], "work_dirs/digits_resnet8", backend).iterdir() if p.stat().st_size]
            assert entry["size_bytes"][side] in {
                sum(p.stat().st_size for p in files if p.stem == stem) for stem in ("model", "float")
            }
        assert entry["speedup"] == pytest.approx(
            entry["latency_ms"]["float"]["p50"] / entry["latency_ms"]["engine"]["p50"]
        )
        assert entry["calibration"]["samples"] == 96
        assert entry["calibration"]["seconds"] > 0
        assert entry["limits"] == {"max_drop": 1.0}
        assert entry["passed"] is (gap["float_to_engine"] <= 1.0)

    def test_head(self, run):
        report = run[2]
        assert report["schema_version"] == 1
        assert report["seed"] == 3
        assert report["command"].startswith("razordeploy ptq ptq/digits_resnet8.py --backend openvino,onnxruntime")
        assert report["calibration"]["source"].startswith("scikit-learn digits, train")
        assert report["warnings"] == []
        assert {"versions", "cpu", "cpu_flags", "os", "python", "threads"} == set(report["environment"])
        read_report(run[0] / "work_dirs" / "digits_resnet8")

    def test_page(self, run):
        page = (run[0] / "work_dirs" / "digits_resnet8" / "report.html").read_text()
        assert "openvino" in page
        assert "onnxruntime" in page

    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    def test_manifest(self, run, backend):
        artifact = Artifact.load(run[0] / "work_dirs" / "digits_resnet8" / backend)
        artifact.verify()
        assert (artifact.kind, artifact.stage, artifact.params["backend"]) == ("engine", "ptq", backend)
        assert artifact.params["overrides"] == {"seed": "3", "calibration.num_samples": "96"}
        assert artifact.inputs[0].shape == (None, 1, 8, 8)
        assert artifact.outputs[0].shape == (None, 10)
        listed = {*artifact.files.values(), "manifest.json"}
        assert {p.name for p in artifact.path.iterdir()} == listed

    def test_screen(self, run):
        lines = run[1].out.splitlines()
        assert max(map(len, lines[:6])) <= 80
        assert any(line.startswith("onnxruntime ") for line in lines)
        assert lines[-1].startswith("PASSED gap ")
        assert lines[-1].endswith("report: work_dirs/digits_resnet8/report.html")
        assert "  razordeploy evaluate work_dirs/digits_resnet8" in lines


class TestMeasure:
    def test_evaluate_gives_the_reports_figures(self, run, cli):
        work = run[0] / "work_dirs" / "digits_resnet8"
        result = cli("evaluate", str(work / "openvino"), env={"COLUMNS": "200"})
        # The recipe's own checkpoint is not there, but the engine knows the one it was made from.
        assert result.code == 0, result.err
        row = next(line.split() for line in result.out.splitlines() if "openvino" in line)
        metrics = run[2]["backends"]["openvino"]["metrics"]
        assert row[1:4] == [f"{metrics[side]['top1']:.2f}" for side in ("float", "simulated", "engine")]
        assert row[-2:] == ["355", "passed"]
        assert result.err == ""

    def test_evaluate_says_when_the_weights_changed(self, run, cli, digits):
        path = str(run[0] / "work_dirs" / "digits_resnet8" / "openvino")
        import torch

        state = torch.load(digits, weights_only=False)
        keep = digits.read_bytes()
        weights = state.get("state_dict", state)
        weights["linear.bias"] = weights["linear.bias"] + 1
        torch.save(state, digits)
        try:
            result = cli("evaluate", path)
        finally:
            digits.write_bytes(keep)
        assert "was made from other weights than" in result.err

    def test_evaluate_fails_over_the_limit(self, run, cli):
        path = str(run[0] / "work_dirs" / "digits_resnet8" / "openvino")
        gap = run[2]["backends"]["openvino"]["gap"]["float_to_engine"]
        result = cli("evaluate", path, "--set", "deploy.max_drop=0", env={"COLUMNS": "200"})
        assert result.code == int(gap > 0)

    def test_benchmark(self, run, cli):
        work = run[0] / "work_dirs" / "digits_resnet8"
        result = cli(
            "benchmark", str(work), "--seconds", "0.1", "--batch", "2", "--threads", "1", env={"COLUMNS": "200"}
        )
        assert result.code == 0, result.err
        rows = [line.split() for line in result.out.splitlines() if "digits_resnet8" in line]
        assert [("(float)" in row) for row in rows] == [True, False, True, False]
        assert "batch 2, 1 threads, interleaved" in result.out

    def test_compare(self, run, cli):
        work = run[0] / "work_dirs" / "digits_resnet8"
        result = cli("compare", str(work / "openvino"), str(work / "onnxruntime"))
        assert result.code == 0, result.err
        assert "largest difference" in result.out
        assert "layer2.conv1 conv2d" in result.out

    def test_compare_takes_one_engine_a_side(self, run, cli):
        work = run[0] / "work_dirs" / "digits_resnet8"
        result = cli("compare", str(work), str(work / "openvino"))
        assert result.code == 2
        assert "holds 2 engines; give one: " in result.error

    def test_compare_different_inputs(self, run, cli, made):
        result = cli("compare", str(run[0] / "work_dirs/digits_resnet8/openvino"), str(made / "work" / "openvino"))
        assert result.code == 2
        assert "have different inputs: float32 (N, 1, 8, 8) and float32 (N, 3, 8, 8)" in result.error

    @pytest.mark.parametrize("verb", ["evaluate", "benchmark"])
    def test_changed_engine(self, cli, earlier, verb):
        with (earlier / "openvino" / "model.bin").open("r+b") as file:
            file.truncate(100)
        result = cli(verb, "work")
        assert result.code == 2
        assert (
            "openvino is damaged: the file model.bin (engine_weights) was changed after it was written" in result.error
        )


class TestChecks:
    def test_gap_over_the_limit(self, cli, tiny, tmp_path):
        # Weights of the last layer that only differ below the grid's step: the engine cannot tell the classes apart.
        (tmp_path / "fine.py").write_text(
            "import torch\nfrom tiny import net\n\n"
            "def fine():\n    m = net()\n    w = m[7].weight.data\n"
            "    m[7].weight.data = 1 + w * 1e-4\n    m[7].bias.data.zero_()\n    return m\n\n"
            "def samples(split):\n    from tiny import samples as s\n    m = fine().eval()\n"
            "    x = torch.stack([x for x, _ in s(split)])\n"
            "    return list(zip(x, m(x).argmax(1).tolist()))\n"
        )
        changes = {"model": {"type": "fine:fine"}, "data": {"type": "fine:samples"}}
        argv = ("ptq", tiny(**changes), "--work-dir", "work", "--max-drop", "0.5", "--benchmark-seconds", "0")
        result = cli(*argv)
        assert result.code == 1, result.out + result.err
        assert "error:" not in result.err
        report = json.loads((tmp_path / "work" / "report.json").read_text())["backends"]["onnxruntime"]
        assert report["passed"] is False
        assert report["gap"]["float_to_engine"] > 0.5
        assert report["limits"] == {"max_drop": 0.5}
        assert report["failures"][0].endswith("points, over 0.5")
        Artifact.load(tmp_path / "work" / "onnxruntime").verify()
        assert result.out.splitlines()[-1].startswith("FAILED gap ")

    def test_two_runs_give_the_same_bytes(self, cli, tiny, made, tmp_path):
        options = ("--backend", "openvino,onnxruntime", "--work-dir", "work", "--benchmark-seconds", "0")
        assert cli("ptq", tiny(), *options).code == 0
        mine, other = tree(tmp_path / "work"), tree(made / "work")
        assert set(mine) == set(other)
        engines = [n for n in mine if "/" in n and not n.endswith("manifest.json")]
        assert len(engines) >= 8
        assert {n: mine[n] for n in engines} == {n: other[n] for n in engines}

    def test_another_seed_calibrates_on_other_samples(self, cli, tiny, made, tmp_path):
        options = ("--backend", "onnxruntime", "--work-dir", "work", "--benchmark-seconds", "0", "--set", "seed=1")
        assert cli("ptq", tiny(), *options).code == 0
        name = "onnxruntime/placement.json"
        assert tree(tmp_path / "work")[name] != tree(made / "work")[name]

    def test_statistics_are_collected_once(self, cli, tiny, tmp_path):
        count = (
            "import sys, razordeploy.quantization.statistics as s\n"
            "run = s.fx.GraphModule.__call__\n"
            "import razordeploy.quantization.calibrate as c\ncollect = c.collect\n"
            "def counted(*a, on_batch, **k):\n"
            "    def told(so_far):\n        print('observed', file=sys.stderr)\n        on_batch(so_far)\n"
            "    return collect(*a, on_batch=told, **k)\n"
            "c.collect = counted"
        )
        options = ("--backend", "openvino,onnxruntime", "--work-dir", "work", "--benchmark-seconds", "0")
        # 64 samples in batches of 16, for two backends.
        assert cli("ptq", tiny(), *options, before=count).err.count("observed") == 4
        assert cli("ptq", tiny(), *options, before=count).err.count("observed") == 0
        assert cli("ptq", tiny(), *options, "--set", "seed=1", before=count).err.count("observed") == 4

    def test_warnings_survive_the_cache(self, cli, tiny, tmp_path):
        recipe = tiny(calibration={"num_samples": 8}, data={"type": "tiny:samples", "change": "x * 0"})
        warnings = []
        for _ in range(2):
            assert cli("ptq", recipe, "--work-dir", "work", "--benchmark-seconds", "0").code == 0
            warnings.append(json.loads((tmp_path / "work" / "report.json").read_text())["warnings"])
        assert warnings[0] == warnings[1]
        assert "calibration data: batch 0: all 1536 values are zero; is the preprocessing right?" in warnings[0]
        assert any("only 8 calibration samples: expected at least 32" in w for w in warnings[0])

    def test_calibrated_on_the_evaluation_data(self, cli, tiny, tmp_path):
        recipe = tiny(calibration={"num_samples": 64, "split": "test"})
        for _ in range(2):  # from the cache too
            result = cli("ptq", recipe, "--work-dir", "work", "--benchmark-seconds", "0")
            assert result.code == 0
            assert "64 of 64 calibration samples are also evaluated on" in result.out

    def test_nothing_to_quantize(self, cli, tiny, tmp_path):
        (tmp_path / "flat.py").write_text(
            "from torch import nn\n\ndef net():\n    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten())\n"
        )
        result = cli("ptq", tiny(model={"type": "flat:net"}), "--work-dir", "work", "--benchmark-seconds", "0")
        assert result.code == 0, result.err
        assert "no operation of the model can be quantized: the engine computes in float" in result.out

    def test_fixed_batch(self, cli, tiny, tmp_path):
        deploy = {"backends": ["onnxruntime"], "input_shapes": [(3, 8, 8)], "dynamic_batch": False, "max_drop": 100.0}
        recipe = tiny(deploy=deploy, data={"type": "tiny:samples", "count": 95})
        result = cli("ptq", recipe, "--work-dir", "work", "--benchmark-seconds", "0.05")
        assert result.code == 0, result.err
        assert Artifact.load(tmp_path / "work" / "onnxruntime").inputs[0].shape == (2, 3, 8, 8)
        again = cli("evaluate", "work", env={"COLUMNS": "200"})
        assert again.code == 0, again.err
        assert "95" in again.out


class TestInspect:
    def test_backends(self, cli):
        result = cli("backends")
        assert result.code == 0
        assert {"openvino", "onnxruntime", "torch_native", "academic"} <= {
            line.split()[0] for line in result.out.splitlines() if line.strip()
        }

    def test_backends_missing(self, cli):
        before = "import razordeploy.backends.registry as r\nr.available = lambda name: name != 'openvino'"
        result = cli("backends", before=before, env={"COLUMNS": "120"})
        row = next(line for line in result.out.splitlines() if line.split()[:1] == ["openvino"])
        assert "pip install 'razordeploy[openvino]'" in row

    def test_doctor(self, cli):
        result = cli("doctor", "--json")
        facts = json.loads(result.out)
        assert set(facts) == {"python", "cpu", "cpu_flags", "threads", "vnni", "packages", "backends", "problems"}
        assert facts["backends"]["openvino"] == {"installed": True, "missing": []}
        assert result.code == int(bool(facts["problems"]))
        plain = cli("doctor")
        assert plain.code == result.code
        assert plain.out.startswith(f"Python {facts['python']}, ")

    def test_as_a_module(self, tmp_path):
        # Without the fork server: the way a user starts it.
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "razordeploy.cli.main", "ptq", "nothing.py"]
        result = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
        assert result.returncode == 2
        assert result.stderr.startswith("error: no recipe 'nothing.py'; ")
        assert result.stderr.count("\n") == 1


class TestWithoutAVerb:
    def test_version(self, cli):
        result = cli("--version")
        assert (result.code, result.out) == (0, "razordeploy 0.1.0\n")

    def test_as_a_module(self):
        shown = subprocess.run([sys.executable, "-m", "razordeploy", "--version"], capture_output=True, text=True)
        assert (shown.returncode, shown.stdout) == (0, "razordeploy 0.1.0\n")
