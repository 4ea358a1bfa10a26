"""mmrazor's scripts: what their flags become, and what a recipe's own model scores."""

from __future__ import annotations

import re

import pytest
import torch

from razordeploy.cli import older_scripts
from tests.compress.distill.tiny import images, samples, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
HERE = "tests.compress.distill.tiny"


@pytest.fixture
def verbs(monkeypatch):
    """What the command line was given."""
    found = []
    monkeypatch.setattr("razordeploy.cli.main.main", found.append)
    return found


def said(call, words, verbs):
    with pytest.raises(SystemExit):
        call(words)
    return verbs[-1]


QUANT = "model = dict(type='mmrazor.MMArchitectureQuant', architecture={}, quantizer=dict(type='mmrazor.{}'))\n"


@pytest.mark.parametrize(
    ("content", "words", "expected"),
    [
        ("model = dict(type='a:b')", ["--amp", "--resume"], ["train", "r.py", "--amp", "--resume"]),
        ("model = dict(type='a:b')", ["--resume", "auto"], ["train", "r.py", "--resume"]),
        (
            "model = dict(type='a:b')",
            ["--cfg-options", "a=1", "b=2", "--local_rank", "0", "--local-rank=1", "--launcher", "pytorch"],
            ["train", "r.py", "--set", "a=1", "b=2", "--launcher", "pytorch"],
        ),
        (
            "model = dict(type='a:b')",
            ["--auto-scale-lr"],
            ["train", "r.py", "--set", "auto_scale_lr.enable=True"],
        ),
        (
            QUANT.format("dict(type='a:b')", "OpenVINOQuantizer"),
            ["--resume", "--amp", "--work-dir", "w"],
            ["qat", "r.py", "--amp", "--work-dir", "w"],
        ),
        (
            "model = dict(type='a:b')\ntrain_cfg = dict(type='mmrazor.EvolutionSearchLoop', max_epochs=2)",
            ["--resume", "--launcher", "none", "--work-dir", "w"],
            ["search", "r.py", "--work-dir", "w"],
        ),
        ("model = ", ["--work-dir", "w"], ["train", "r.py", "--work-dir", "w"]),
    ],
)
def test_training(tmp_path, monkeypatch, verbs, content, words, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.py").write_text(content)
    assert said(older_scripts.train, ["r.py", *words], verbs) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["r.py", "c.pth", "--work-dir", "w"], ["evaluate", "r.py", "--checkpoint", "c.pth"]),
        (["r.py", "none", "--cfg-options", "a=1"], ["evaluate", "r.py", "--set", "a=1"]),
        (["r.py", "--launcher=none"], ["evaluate", "r.py"]),
        (["work_dirs/x", "--recipe", "r.py"], ["evaluate", "work_dirs/x", "--recipe", "r.py"]),
        ([], ["evaluate"]),
    ],
)
def test_testing(verbs, words, expected):
    assert said(older_scripts.test, words, verbs) == expected


def test_calibrating(verbs):
    words = ["r.py", "--launcher", "none", "--work-dir", "w", "--cfg-options", "a=1"]
    assert said(older_scripts.ptq, words, verbs) == ["ptq", "r.py", "--work-dir", "w", "--set", "a=1"]


def row(capsys):
    return re.findall(r"\s([\d.]+|-)(?=\s|$)", capsys.readouterr().out.split("r.py")[-1])


def test_the_float_model_of_a_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = tiny(3)
    torch.save(model.state_dict(), "c.pth")
    (tmp_path / "r.py").write_text(f"model = dict(type='{HERE}:tiny')\ndata = dict(type='{HERE}:samples')\n")
    right = [float(model.eval()(x[None]).argmax() == label) for x, label in samples("test")]
    with pytest.raises(SystemExit) as end:
        older_scripts.test(["r.py", "c.pth"])
    assert end.value.code == 0
    assert row(capsys) == [f"{100 * sum(right) / len(right):.2f}", "-", "-", "-", "48", "-"]


def test_the_quantized_model_of_mmrazors_wrapper(tmp_path, monkeypatch, capsys):
    from razordeploy.quantization.qat.phases import calibration_phase, validation_phase
    from razordeploy.registry import build_model

    monkeypatch.chdir(tmp_path)
    config = {
        "type": "mmrazor.MMArchitectureQuant",
        "architecture": {"type": f"{HERE}:tiny"},
        "quantizer": {"type": "mmrazor.OpenVINOQuantizer"},
        "input_shapes": (2, 1, 8, 8),
    }
    model = build_model(config, "model")
    calibration_phase(model.eval())
    model(images(16))
    validation_phase(model)
    torch.save({"state_dict": model.state_dict()}, "ptq.pth")
    (tmp_path / "r.py").write_text(f"model = {config!r}\ndata = dict(type='{HERE}:samples')\n")
    x = torch.stack([image for image, _ in samples("test")])
    labels = torch.tensor([label for _, label in samples("test")])
    expected = [f"{100 * float((m(x).argmax(1) == labels).double().mean()):.2f}" for m in (model.architecture, model)]
    with pytest.raises(SystemExit) as end:
        older_scripts.test(["r.py", "ptq.pth"])
    assert end.value.code == 0
    assert row(capsys)[:3] == [*expected, "-"]


def test_weights_that_are_not_the_models(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(tiny(0, width=8).state_dict(), "c.pth")
    (tmp_path / "r.py").write_text(f"model = dict(type='{HERE}:tiny')\ndata = dict(type='{HERE}:samples')\n")
    with pytest.raises(SystemExit) as end:
        older_scripts.test(["r.py", "c.pth"])
    assert end.value.code == 2 and "does not match the model" in capsys.readouterr().err
