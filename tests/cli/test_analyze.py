"""``analyze`` and ``ptq --recover`` from the command line: files, the line to paste, bad input, an interrupt."""

from __future__ import annotations

import csv
import json
import re
import shlex
import signal

import pytest

from tests.cli.test_signals import signal_at

RUN = ("--backend", "onnxruntime,academic", "--work-dir", "work", "--samples", "32")
COARSE = {"global_qconfig": {"w_qscheme": {"bit": 1}, "a_qscheme": {"bit": 2}}}
MANY = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


def samples(split):
    x = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(int(split == "test")))
    return list(zip(x, net()(x).argmax(1).tolist()))
"""
SLOW = """
import sys, time
import razordeploy.analysis as a
call = a._Measure.__call__
def slow(self, module):
    print("measuring", file=sys.stderr, flush=True)
    time.sleep(0.2)
    return call(self, module)
a._Measure.__call__ = slow
"""


def test_files_table_and_the_line_to_paste(cli, tiny, tmp_path):
    recipe = tiny()
    result = cli("analyze", recipe, *RUN, "--keep", "2")
    assert result.code == 0, result.err
    folder = tmp_path / "work" / "analysis"
    assert {p.name for p in folder.iterdir()} == {
        f"{b}.{s}" for b in ("onnxruntime", "academic") for s in ("json", "csv", "png", "html")
    }
    content = json.loads((folder / "academic.json").read_text())
    assert content["metric"] == "top1" and content["samples"] == 32 and content["float_metric"] == 100
    assert len(content["keep_float"]) == 2 and len(content["layers"]) == 3
    rows = list(csv.DictReader((folder / "academic.csv").read_text().splitlines()))
    assert [r["rank"] for r in rows] == ["1", "2", "3"]
    decibels = [float(r["isolated_sqnr_db"]) for r in rows]
    assert decibels == sorted(decibels)
    assert (folder / "academic.png").read_bytes().startswith(b"\x89PNG")
    assert "default-src 'none'" in (folder / "academic.html").read_text()

    line = re.search(r"keep these 2 in float:\s+(--set .*)", result.out)[1]
    pasted = shlex.split(line)
    again = cli("analyze", recipe, *RUN[:1], "academic", *RUN[2:], *pasted)
    assert again.code == 0, again.err
    left = json.loads((folder / "academic.json").read_text())["layers"]
    assert {r["module"] for r in left} == {r["module"] for r in content["layers"]} - set(content["keep_float"])


def test_interrupt_keeps_operations(cli, tiny, tmp_path):
    recipe = tiny()
    stopped = cli("analyze", recipe, *RUN, before=SLOW, started=signal_at("measuring", signal.SIGINT))
    assert stopped.code == 130
    assert re.search(r"interrupted: \d+ analyzed operations are kept; resume with: razordeploy analyze", stopped.err)
    assert cli("analyze", recipe, *RUN).code == 0


@pytest.mark.parametrize(
    ("argv", "text"),
    (
        (("--backend", "nowhere"), "unknown backend 'nowhere'"),
        (("--backend", "academic", "--samples", "0"), "--samples"),
        (("--backend", "academic", "--set", "quantize.skip=['nothing']"), "'nothing' matches no module"),
        (("--backend", "academic", "--set", "quantize.algorithms=['AdaRond']"), "did you mean 'AdaRound'?"),
        (
            ("--backend", "academic", "--set", "quantize.algorithms=['BiasCorrection','SmoothQuant']"),
            "put SmoothQuant before BiasCorrection",
        ),
    ),
)
def test_bad_input_is_one_line(cli, tiny, tmp_path, argv, text):
    result = cli("analyze", tiny(), "--work-dir", "work", *argv)
    assert result.code == 2
    assert text in result.error
    assert not (tmp_path / "work" / "analysis").exists()


class TestRecover:
    RUN = ("--backend", "academic", "--work-dir", "work", "--benchmark-seconds", "0", "--recover")

    def test_a_target_out_of_reach_is_a_failed_check_with_the_best_kept(self, cli, tiny, tmp_path):
        steps = "import razordeploy.recovery as r\nr.STEPS = r.STEPS[:2]"
        (tmp_path / "many.py").write_text(MANY)
        recipe = tiny(model={"type": "many:net"}, data={"type": "many:samples"}, quantize=COARSE)
        result = cli("ptq", recipe, *self.RUN, "--max-drop", "0", before=steps)
        assert result.code == 1, result.err
        entry = json.loads((tmp_path / "work" / "report.json").read_text())["backends"]["academic"]
        assert entry["recovery"]["end"] <= entry["recovery"]["start"]
        assert entry["gap"]["float_to_engine"] == pytest.approx(entry["recovery"]["end"])
        assert entry["recovery"]["steps"][-1]["name"] == "training"
        assert "seconds" in entry["recovery"]["steps"][-1] and entry["recovery"]["met"] is False

    def test_training_without_labels_is_a_note_and_nothing_is_lost(self, cli, tiny, tmp_path):
        (tmp_path / "many.py").write_text(
            MANY + "\n\nlabelled = samples\n\n\ndef samples(split):\n"
            "    found = labelled(split)\n    return [(x, -1) for x, _ in found] if split == 'train' else found\n"
        )
        recipe = tiny(model={"type": "many:net"}, data={"type": "many:samples"}, quantize=COARSE)
        steps = "import razordeploy.recovery as r\nr.STEPS = r.STEPS[:1]"
        result = cli("ptq", recipe, *self.RUN, "--max-drop", "0", before=steps)
        assert result.code == 1, result.err
        last = json.loads((tmp_path / "work" / "report.json").read_text())["backends"]["academic"]["recovery"]["steps"][
            -1
        ]
        assert last["name"] == "training" and not last["kept"] and "labels" in last["note"]

    def test_what_holds_already_is_not_touched(self, cli, tiny, tmp_path):
        result = cli("ptq", tiny(), *self.RUN, "--max-drop", "60")
        assert result.code == 0, result.err
        entry = json.loads((tmp_path / "work" / "report.json").read_text())["backends"]["academic"]
        assert entry["recovery"] == {**entry["recovery"], "steps": [], "met": True}

    def test_same_samples_for_calibration_and_evaluation_are_told(self, cli, tiny, tmp_path):
        (tmp_path / "twin.py").write_text("import tiny\n\ndef samples(split):\n    return tiny.samples('train')\n")
        result = cli("ptq", tiny(data={"type": "twin:samples"}), *self.RUN, "--max-drop", "100")
        assert result.code == 0, result.err
        assert "calibration samples are also evaluated on" in " ".join(result.out.split())

    def test_channels_without_a_range(self, cli, tiny, tmp_path):
        (tmp_path / "dead.py").write_text(
            "import tiny, torch\n\ndef net():\n    model = tiny.net()\n    with torch.no_grad():\n"
            "        model[0].weight[1] = 0\n        model[3].weight[:, 2] = 0\n        model[3].weight[0] = 0\n"
            "        model[3].bias[0] = -5\n    return model\n"
        )
        names = ["CrossLayerEqualization", "SmoothQuant", "RangeSearch", "BatchNormReestimation"]
        algorithms = [*names, {"type": "AdaRound", "steps": 5}, {"type": "LSQFinetune", "steps": 5}, "BiasCorrection"]
        changes = {"model": {"type": "dead:net"}, "quantize": {"algorithms": algorithms}}
        run = (
            "ptq",
            tiny(**changes),
            "--backend",
            "openvino,academic",
            "--work-dir",
            "work",
            "--benchmark-seconds",
            "0",
        )
        result = cli(*run)
        assert result.code == 0, result.err
        for entry in json.loads((tmp_path / "work" / "report.json").read_text())["backends"].values():
            assert entry["parity"]["sqnr_db"] is None or entry["parity"]["sqnr_db"] > 25
