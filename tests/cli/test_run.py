"""Pipelines: what they leave, what is done again and what is not, how they end early, what they refuse."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

import razordeploy as rd
from razordeploy.artifact import Artifact
from razordeploy.workdir import WorkDir
from tests.cli.conftest import tree, wait_for, write_tiny
from tests.cli.test_signals import SLOW_CALIBRATION

TRAIN = {"epochs": 1, "lr": 1e-3, "threads": 1}
STAGES = [
    {"stage": "train"},
    {"stage": "export", "name": "half", "set": {"prune.choice": 0.5}},
    {"stage": "train", "name": "tuned"},
    {"stage": "ptq", "name": "int8", "benchmark_seconds": 0},
]


def _recipe(folder, stages=STAGES, **changes):
    return write_tiny(folder, train=TRAIN, pipeline=stages, **changes).name


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory):
    """A folder with a pipeline that has run."""
    folder = tmp_path_factory.mktemp("finished")
    result = server.run(("run", _recipe(folder), "--work-dir", "work"), folder)
    assert result.code == 0, result.err
    return folder


@pytest.fixture
def run(server, finished):
    return lambda *words, **options: server.run(
        ("run", "tiny_recipe.py", "--work-dir", "work", *words), finished, **options
    )


def test_every_stage_is_an_artifact(finished):
    work = finished / "work"
    kinds = {name: Artifact.load(work / name).kind for name in ("train", "half", "tuned")}
    assert kinds == {"train": "float", "half": "sliced", "tuned": "sliced"}
    chain = [Artifact.load(work / name) for name in ("train", "half", "tuned")]
    assert chain[2].parent == chain[1].id
    assert rd.load_model(work / "tuned")[0].out_channels == 2
    assert rd.load_engine(work / "int8" / "onnxruntime").coverage().int8 > 0


def test_one_manifest_and_one_report(finished):
    work = finished / "work"
    state = json.loads((work / "pipeline.json").read_text())
    for stage in state["stages"].values():
        for folder, entry in stage["artifacts"].items():
            artifact = Artifact.load(work / folder)
            assert artifact.id == entry["id"]
            for role, digest in entry["sha256"].items():
                assert hashlib.sha256(artifact.file(role).read_bytes()).hexdigest() == digest
    report = json.loads((work / "report.json").read_text())
    assert report["passed"] is True
    assert [stage["name"] for stage in report["stages"]] == ["train", "half", "tuned", "int8"]
    rows = {row["name"]: row for row in report["rows"]}
    assert rows["half"]["params"] < rows["train"]["params"]
    assert rows["tuned"]["change"] == pytest.approx(rows["tuned"]["value"] - rows["half"]["value"])
    assert report["backends"]["onnxruntime"]["passed"] is True
    assert rows["int8"]["value"] == report["backends"]["onnxruntime"]["metrics"]["engine"]["top1"]
    page = (work / "report.html").read_text()
    assert all(name in page for name in ("half", "tuned", "int8"))


def test_what_is_done_is_not_done_again(run, finished):
    before = tree(finished / "work")
    result = run()
    assert result.code == 0, result.err
    assert result.err.count("kept") == 4
    changed = {name for name, digest in tree(finished / "work").items() if before.get(name) != digest}
    assert changed <= {"report.json", "report.html", "pipeline.json"}


def test_the_plan_writes_nothing(cli, tmp_path):
    result = cli("run", _recipe(tmp_path), "--work-dir", "work", "--dry-run")
    assert result.code == 0, result.err
    assert "to do" in result.out
    assert "prune.choice=0.5" in result.out
    assert not (tmp_path / "work").exists()


def test_a_changed_stage_and_those_after_it_run_again(run, finished):
    result = run("--dry-run", "--set", "calibration.num_samples=32")
    assert result.out.count("to do") == 4
    plan = run("--dry-run", "--from", "int8")
    assert (plan.out.count("kept"), plan.out.count("to do")) == (3, 1)
    weights = finished / "work" / "half" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content + b"x")
    try:
        plan = run("--dry-run")
        assert (plan.out.count("kept"), plan.out.count("to do")) == (1, 3)
    finally:
        weights.write_bytes(content)


def test_the_same_seed_gives_the_same_engine(server, finished):
    result = server.run(("run", "tiny_recipe.py", "--work-dir", "again"), finished)
    assert result.code == 0, result.err
    for name in ("train/model.pth", "half/model.onnx", "tuned/model.pth", "int8/onnxruntime/model.onnx"):
        assert (finished / "again" / name).read_bytes() == (finished / "work" / name).read_bytes(), name


def test_a_stage_that_fails_leaves_those_before_it(cli, tmp_path):
    broken = [*STAGES[:1], {"stage": "export", "name": "half", "set": {"prune.units": {"9_(0, 4)_4": 2}}}, *STAGES[2:]]
    result = cli("run", _recipe(tmp_path, broken), "--work-dir", "work")
    assert result.code == 2
    assert "stage 'half': the subnet has a unit '9_(0, 4)_4'" in result.error
    assert result.error.endswith("go on with: razordeploy run tiny_recipe.py --work-dir work")
    assert rd.load_model(tmp_path / "work" / "train")
    report = json.loads((tmp_path / "work" / "report.json").read_text())
    assert report["passed"] is False
    assert [(s["name"], bool(s["error"])) for s in report["stages"]] == [("train", False), ("half", True)]
    result = cli("run", _recipe(tmp_path), "--work-dir", "work", "--until", "half")
    assert result.code == 0, result.err
    assert result.err.count("kept") == 1
    assert "left to do: tuned, int8" in result.out


def test_a_gap_over_the_limit_fails_and_the_rest_is_made(cli, tmp_path):
    stages = [STAGES[0], {**STAGES[3], "set": {"deploy.max_drop": 0.0, "quantize.global_qconfig": {"w_bits": 2}}}]
    stages[1]["set"] = {"deploy.metric": "tiny:falls"}
    recipe = _recipe(
        tmp_path, stages, deploy={"backends": ["onnxruntime"], "input_shapes": [(3, 8, 8)], "max_drop": 0.5}
    )
    (tmp_path / "tiny.py").write_text((tmp_path / "tiny.py").read_text() + FALLS)
    result = cli("run", recipe, "--work-dir", "work")
    assert result.code == 1, result.err
    assert (tmp_path / "work" / "int8" / "onnxruntime" / "manifest.json").is_file()
    assert json.loads((tmp_path / "work" / "report.json").read_text())["passed"] is False
    again = cli("run", recipe, "--work-dir", "work")
    assert (again.code, again.err.count("kept")) == (1, 2)


FALLS = """

calls = []


def falls(outputs, targets):
    calls.append(1)
    return {"score": 90.0 - 10.0 * len(calls)}
"""
MISSING = """
import razordeploy.backends.registry as r, razordeploy.lazy as lazy
real = lazy.available
r.available = lambda name: name != 'openvino' and real(name)
"""
SLOW = """
import time
from mmengine.runner import loops
before = loops.EpochBasedTrainLoop.run_epoch
def slow(self):
    before(self)
    time.sleep(0.5)
loops.EpochBasedTrainLoop.run_epoch = slow
"""

# Some libraries catch everything and raise an error of their own.
SWALLOWED = """
import time
from mmengine.runner import loops
before = loops.EpochBasedTrainLoop.run_epoch
def swallowing(self):
    before(self)
    try:
        time.sleep(0.5)
    except BaseException:
        raise RuntimeError("it stopped")
loops.EpochBasedTrainLoop.run_epoch = swallowing
"""


@pytest.mark.parametrize("slow", [SLOW, SWALLOWED])
def test_interrupted_training_goes_on(cli, tmp_path, slow):
    recipe = _recipe(tmp_path, STAGES[:1])
    sets = ("--set", "train.epochs=3")

    def interrupt(pid: int, err: Path) -> None:
        wait_for("epoch 2/3", err)
        os.kill(pid, signal.SIGINT)

    result = cli("run", recipe, "--work-dir", "work", *sets, before=slow, started=interrupt)
    assert result.code == 130, result.err
    assert "resume with: razordeploy run tiny_recipe.py --work-dir work --set train.epochs=3" in result.err
    assert not (tmp_path / "work" / "train").exists()
    result = cli("run", recipe, "--work-dir", "work", *sets)
    assert result.code == 0, result.err
    assert "epoch 1/3" not in result.err
    plain = cli("run", recipe, "--work-dir", "plain", *sets)
    assert plain.code == 0, plain.err
    one, other = (tmp_path / name / "train" / "model.pth" for name in ("work", "plain"))
    assert one.read_bytes() == other.read_bytes()


def test_sigterm_in_a_stage_of_engines(cli, tmp_path):
    recipe = _recipe(tmp_path, [STAGES[0], {**STAGES[3], "backends": "openvino"}])
    words = ("run", recipe, "--work-dir", "work")

    def terminate(pid: int, err: Path) -> None:
        wait_for("batch 32", err)
        os.kill(pid, signal.SIGTERM)

    result = cli(*words, before=SLOW_CALIBRATION, started=terminate)
    assert result.code == 143, result.err
    assert "Traceback" not in result.err
    assert result.err.splitlines()[-1].endswith("resume with: razordeploy run tiny_recipe.py --work-dir work")
    assert not (tmp_path / "work" / "int8" / "report.json").exists()
    went_on = cli(*words, before=SLOW_CALIBRATION)
    assert went_on.code == 0, went_on.err
    assert went_on.err.count("kept") == 1
    assert "batch 32" not in went_on.err


class TestBadInput:
    def test_two_runs_on_one_work_dir(self, cli, tmp_path):
        with WorkDir(tmp_path / "work"):
            result = cli("run", _recipe(tmp_path), "--work-dir", "work")
        assert result.code == 5
        assert "in use by process" in result.error

    @pytest.mark.parametrize(
        ("words", "text"),
        [
            (("--from", "hlaf"), "--from: no stage is called 'hlaf'; did you mean 'half'?"),
            (("--until", "x"), "--until: no stage is called 'x'; known: half, int8, train, tuned"),
            (("--from", "int8", "--until", "half"), "--until half comes before --from int8"),
            (("--from", "half"), "--from half: the stage 'train' before it is not done or has changed"),
            (("--set", "data.type=nowhere:x"), "cannot import 'nowhere'"),
        ],
    )
    def test_words(self, cli, tmp_path, words, text):
        result = cli("run", _recipe(tmp_path), "--work-dir", "work", *words)
        assert (result.code, text in result.error) == (2, True), result.error

    def test_no_pipeline(self, cli, tiny):
        result = cli("run", tiny())
        assert (result.code, "no 'pipeline' section" in result.error) == (2, True)

    def test_a_backend_that_is_missing(self, cli, tmp_path):
        stages = [{**STAGES[3], "backends": "onnxruntime,openvino"}]
        result = cli("run", _recipe(tmp_path, stages), "--dry-run", before=MISSING)
        assert result.code == 3, result.err
        assert "pip install 'razordeploy[openvino]'" in result.out
        result = cli("run", _recipe(tmp_path, stages), "--work-dir", "work", before=MISSING)
        assert result.code == 3, result.err
        assert (tmp_path / "work" / "int8" / "onnxruntime" / "manifest.json").is_file()
        stages[0]["backends"] = "openvino"
        result = cli("run", _recipe(tmp_path, stages), "--work-dir", "other", before=MISSING)
        assert (result.code, "pip install" in result.error) == (3, True)
        assert not (tmp_path / "other").exists()
