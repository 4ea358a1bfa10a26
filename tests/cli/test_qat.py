"""``razordeploy qat``: from a recipe to trained engines, interrupted and wrong ones too."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, tree
from tests.cli.test_signals import signal_at

RUN = ("--backend", "onnxruntime", "--work-dir", "work", "--benchmark-seconds", "0")
TRAIN = {"epochs": 2, "batch_size": 32, "lr": 0.01, "threads": 1}
DEPLOY = {"backends": ["onnxruntime"], "input_shapes": [(3, 8, 8)], "max_drop": 100.0}
# Every step says on stderr that it came, and takes a moment.
SLOW = """
import sys, time
import razordeploy.quantization.qat.train as t
after = t._Watch.after_train_iter
def slow(self, runner, *args, **kwargs):
    print("step", runner.epoch, runner.iter, file=sys.stderr, flush=True)
    time.sleep(0.2)
    return after(self, runner, *args, **kwargs)
t._Watch.after_train_iter = slow
"""


def test_digits_on_two_engines(cli, digits, tmp_path):
    options = ("--checkpoint", str(digits), "--work-dir", "work", "--benchmark-seconds", "0", "--set", "qat.epochs=1")
    result = cli("qat", "qat/digits_resnet8.py", *options)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert set(report["backends"]) == {"openvino", "onnxruntime"}
    for name, entry in report["backends"].items():
        assert abs(entry["gap"]["simulated_to_engine"]) <= 0.05
        assert entry["gap"]["float_to_engine"] <= 1.0
        assert entry["coverage"]["int8"] == entry["coverage"]["planned"] > 0
        assert entry["seconds"]["train"] > 0
        manifest = json.loads((tmp_path / "work" / name / "manifest.json").read_text())
        assert (manifest["kind"], manifest["stage"]) == ("engine", "qat")
        # The float twin is the model as it came.
        assert entry["metrics"]["float"]["top1"] > 90
    kept = {k: v for k, v in tree(tmp_path / "work").items() if k.endswith(("qat.pth", "model.onnx"))}
    again = cli("qat", "qat/digits_resnet8.py", *options, before=SLOW)
    assert again.code == 0, again.err
    assert "step" not in again.err
    assert kept == {k: v for k, v in tree(tmp_path / "work").items() if k in kept}


def test_interrupted_and_on(cli, tiny, tmp_path):
    distill = {"type": "KLDivergence", "tau": 4.0}
    recipe = tiny(qat={**TRAIN, "distill": distill})
    whole = cli("qat", recipe, "--backend", "onnxruntime", "--work-dir", "whole", "--benchmark-seconds", "0")
    assert whole.code == 0, whole.err
    manifest = json.loads((tmp_path / "whole" / "onnxruntime" / "manifest.json").read_text())
    assert manifest["params"]["qat"]["distill"] == distill
    stopped = cli("qat", recipe, *RUN, before=SLOW, started=signal_at("step 1 4", signal.SIGINT))
    resume = f"razordeploy qat {recipe} {shlex.join(RUN)}"
    assert stopped.code == 130
    assert "Traceback" not in stopped.err
    assert stopped.err.splitlines()[-1] == f"interrupted: epoch 1 of 2 is kept; resume with: {resume}"
    assert not (tmp_path / "work" / "onnxruntime").exists()

    went_on = cli(*shlex.split(resume)[1:], before=SLOW)
    assert went_on.code == 0, went_on.err
    assert "step 0" not in went_on.err
    assert "step 1 3" in went_on.err
    for file in ("qat/onnxruntime/qat.pth", "onnxruntime/model.onnx"):
        assert (tmp_path / "work" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_recipe_in_mmrazors_words(cli, tiny, tmp_path):
    qconfig = {
        "w_observer": {"type": "mmrazor.PerChannelMinMaxObserver"},
        "a_observer": {"type": "mmrazor.MovingAverageMinMaxObserver"},
        "w_fake_quant": {"type": "mmrazor.FakeQuantize"},
        "a_fake_quant": {"type": "mmrazor.FakeQuantize"},
        "w_qscheme": {"qdtype": "qint8", "bit": 8, "is_symmetry": True, "is_symmetric_range": True},
        "a_qscheme": {"qdtype": "quint8", "bit": 8, "is_symmetry": True, "averaging_constant": 0.1},
    }
    quantizer = {
        "type": "mmrazor.OpenVINOQuantizer",
        "global_qconfig": qconfig,
        "tracer": {"type": "mmrazor.CustomTracer", "skipped_methods": ["mmcls.models.heads.ClsHead._get_loss"]},
    }
    recipe = tiny(
        model={"type": "mmrazor.MMArchitectureQuant", "architecture": {"type": "tiny:net"}, "quantizer": quantizer},
        train_cfg={"type": "mmrazor.QATEpochBasedLoop", "max_epochs": 1, "freeze_bn_begin": -1},
        qat={"lr": 0.01, "threads": 1},
        deploy={"input_shapes": [(3, 8, 8)], "max_drop": 100.0},
    )
    result = cli("qat", recipe, "--work-dir", "work", "--benchmark-seconds", "0")
    assert result.code == 0, result.err
    manifest = json.loads((tmp_path / "work" / "openvino" / "manifest.json").read_text())
    assert (manifest["params"]["qat"]["epochs"], manifest["params"]["qat"]["freeze_bn_begin"]) == (1, -1)
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert report["backends"]["openvino"]["coverage"]["int8"] > 0
    assert abs(report["backends"]["openvino"]["gap"]["simulated_to_engine"]) <= 0.05


@pytest.fixture
def refused(cli, tiny, earlier):
    def run(*argv, code=2, before="", **changes):
        had = tree(earlier)
        result = cli("qat", tiny(**{"qat": TRAIN, **changes}), *RUN, *argv, before=before)
        assert result.code == code, result.err
        now = tree(earlier)
        assert {k: now.get(k) for k in had} == had
        return result.error

    return run


class TestBadInput:
    def test_no_training_data(self, refused):
        error = refused(data=None, calibrate_dataloader={"dataset": {"type": "X"}})
        assert "no training data: quantization-aware training needs 'data' or 'train_dataloader'" in error
        assert "razordeploy ptq, which needs no labels" in error

    def test_training_data_without_labels(self, refused, tmp_path):
        (tmp_path / "bare.py").write_text(
            "import torch\ndef samples(split):\n    return [(torch.randn(3, 8, 8), -1) for _ in range(40)]\n"
        )
        assert "expected labelled training data, got samples without labels" in refused(data={"type": "bare:samples"})

    def test_frozen_model(self, refused, tmp_path):
        (tmp_path / "cold.py").write_text(TINY + "\ndef frozen():\n    return net().requires_grad_(False)\n")
        error = refused(model={"type": "cold:frozen"})
        assert "the model is frozen: none of its parameters asks for a gradient" in error
        assert "requires_grad_(True)" in error

    def test_model_that_gives_classes(self, refused, tmp_path):
        code = "\nclass Classes(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        code += "        self.net = net()\n"
        code += "    def forward(self, x):\n        return self.net(x).argmax(1)\n"
        (tmp_path / "hard.py").write_text(TINY + code + "\ndef count(y, t):\n    return {'n': float(len(y))}\n")
        error = refused(model={"type": "hard:Classes"}, deploy={**DEPLOY, "metric": "hard:count"})
        assert "cannot be trained: no gradient comes through 'argmax' at " in error
        assert "hard.py:" in error

    @pytest.mark.parametrize(
        ("qat", "text"),
        [
            ({"epoch": 3}, "unknown key 'epoch' in 'qat'; did you mean 'epochs'?"),
            ({"epochs": 0}, "expected an integer of at least 1 for 'qat.epochs', got int 0"),
            ({"optimizer": "sdg"}, "unknown optimizer 'sdg'; did you mean 'sgd'?"),
            ({"distill": "KLDivergense"}, "unknown qat.distill 'KLDivergense'; did you mean 'KLDivergence'?"),
            ({"distill": {"tua": 2}}, "has no keyword 'tua'; did you mean 'tau'?"),
            ({"loss": "nowhere:loss"}, "no module 'nowhere'"),
            ({"loss": "cross_entropy"}, "expected 'pkg.module:function' for 'qat.loss'"),
            ({"lr": 0}, "lr above 0"),
        ],
        ids=str,
    )
    def test_wrong_setting(self, refused, qat, text):
        assert text in refused(qat={**TRAIN, **qat})

    def test_onnx_file(self, cli, made, tmp_path):
        result = cli("qat", str(made / "work" / "onnxruntime" / "float.onnx"), *RUN)
        assert (result.code, "an ONNX file cannot be trained" in result.error) == (2, True), result.err

    def test_a_loss_that_explodes_costs_no_engine(self, refused):
        assert "the loss is" in refused(qat={**TRAIN, "lr": 1e30})

    def test_dead_relus_are_warned_of(self, cli, tiny, tmp_path):
        dead = "\ndef dead():\n    made = net()\n    nn.init.constant_(made[1].bias, -100.0)\n    return made\n"
        (tmp_path / "gone.py").write_text(TINY + dead)
        result = cli("qat", tiny(model={"type": "gone:dead"}, qat=TRAIN), *RUN)
        assert result.code == 0, result.err
        warnings = json.loads(Path(tmp_path / "work" / "report.json").read_text())["warnings"]
        assert any("0 for every calibration sample (dead ReLUs?)" in text for text in warnings)
