import json
import math
import subprocess
import sys

import numpy as np
import pytest

from razordeploy.artifact import Artifact, TensorSpec, artifact_id, staged_directory, write_artifact
from razordeploy.errors import UsageError

IDENTITY = {
    "kind": "engine",
    "stage": "openvino",
    "parent": "ab",
    "params": {"b": 1, "a": [1, 2]},
    "sha256": {"graph": "12"},
}


def make(target, *, text="weights", **changes):
    with staged_directory(target) as staged:
        (staged / "model.bin").write_text(text)
        given = {
            "kind": "engine",
            "stage": "openvino",
            "files": {"weights": "model.bin"},
            "inputs": [TensorSpec(name="x", shape=(None, 3, 8, 8), dtype="float32")],
            "parent": "ab",
            "params": {"observer": "minmax"},
            "metrics": {"top1": np.float32(91.5), "latency_ms": math.nan},
        }
        return write_artifact(staged, **(given | changes))


def test_load_gives_back_what_was_written(tmp_path):
    identity = make(tmp_path / "a")
    for path in (tmp_path / "a", tmp_path / "a" / "manifest.json"):
        artifact = Artifact.load(path)
        assert artifact.id == identity
        assert artifact.path == tmp_path / "a"
        assert artifact.inputs == (TensorSpec(name="x", shape=(None, 3, 8, 8), dtype="float32"),)
        assert artifact.metrics == {"top1": 91.5, "latency_ms": None}
        assert artifact.file("weights").read_text() == "weights"
        artifact.verify()


def test_reading_needs_neither_torch_nor_an_engine(tmp_path):
    make(tmp_path / "a")
    code = (
        "import sys; from razordeploy.artifact import Artifact; Artifact.load(sys.argv[1]).verify();"
        "heavy = {'torch', 'numpy', 'onnxruntime', 'openvino', 'matplotlib', 'rich'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_id_does_not_depend_on_place_order_or_time(tmp_path):
    assert make(tmp_path / "a") == make(tmp_path / "deeper" / "b", metrics={}, versions={"torch": "9"})
    turned = IDENTITY | {"params": {"a": (1, 2), "b": 1}}
    assert artifact_id(**IDENTITY) == artifact_id(**turned)
    # A fixed value: ids of artifacts on users' disks must not change with a refactoring.
    assert artifact_id(**IDENTITY) == "99396cbee71c92f59c40d00d2c82a00398becac14c5b7dad69dc75ce20ea4737"


@pytest.mark.parametrize(
    "change",
    [{"kind": "float"}, {"stage": "x"}, {"parent": None}, {"params": {"b": 2}}, {"sha256": {"graph": "13"}}],
    ids=lambda change: next(iter(change)),
)
def test_id_depends_on_everything_that_matters(change):
    assert artifact_id(**(IDENTITY | change)) != artifact_id(**IDENTITY)


def test_verify_finds_a_changed_and_a_missing_file(tmp_path):
    make(tmp_path / "a")
    artifact = Artifact.load(tmp_path / "a")
    (tmp_path / "a" / "model.bin").write_text("weightz")
    with pytest.raises(UsageError, match=r"model\.bin \(weights\) was changed"):
        artifact.verify()
    (tmp_path / "a" / "model.bin").unlink()
    with pytest.raises(UsageError, match=r"model\.bin \(weights\) is missing"):
        artifact.verify()


def test_verify_finds_an_edited_manifest(tmp_path):
    make(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("minmax", "mse"))
    with pytest.raises(UsageError, match="the id does not match"):
        Artifact.load(manifest).verify()


def edited(**changes):
    def edit(text):
        return json.dumps(json.loads(text) | changes)

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[: len(text) // 2], "not JSON"),
        (lambda text: "", "not JSON"),
        (lambda text: "[" * 100_000, "damaged"),
        (lambda text: "[]", "was not written by razordeploy"),
        (edited(format="other"), "was not written by razordeploy"),
        (edited(format_version=99), "format version 99, expected 1"),
        (edited(kind="engin"), "did you mean 'engine'"),
        (edited(files=3), "TypeError"),
        (edited(files={"weights": {}}), "KeyError 'name'"),
        (edited(inputs=[{"name": "x", "shape": ["wide"], "dtype": "float32"}]), "ValueError"),
        (edited(files={"weights": {"name": "../secret", "sha256": ""}}), "leads out of"),
        (edited(files={"weights": {"name": "/etc/passwd", "sha256": ""}}), "leads out of"),
    ],
)
def test_a_bad_manifest_is_one_line(tmp_path, edit, message):
    make(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(edit(manifest.read_text()))
    with pytest.raises(UsageError, match=message) as caught:
        Artifact.load(tmp_path / "a")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a") in str(caught.value)


def test_bytes_that_are_no_text_are_one_line(tmp_path):
    make(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="damaged"):
        Artifact.load(tmp_path / "a")


def test_a_folder_of_artifacts_names_them(tmp_path):
    make(tmp_path / "work" / "openvino")
    with pytest.raises(UsageError, match=r"found no manifest\.json; give one of its folders: openvino"):
        Artifact.load(tmp_path / "work")
    with pytest.raises(UsageError, match=r"found no manifest\.json"):
        Artifact.load(tmp_path / "nowhere" / "at all")


def test_a_symbolic_link_may_not_lead_out(tmp_path):
    make(tmp_path / "a")
    (tmp_path / "secret").write_text("weights")
    (tmp_path / "a" / "model.bin").unlink()
    (tmp_path / "a" / "model.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(UsageError, match="leads out of"):
        Artifact.load(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "engin"}, "did you mean 'engine'"),
        ({"files": {"weights": "nothing.bin"}}, "is not in"),
        ({"files": {"weights": "../model.bin"}}, "leads out of"),
        ({"params": {"loss": {"of": object()}}}, r"value\.params\.loss\.of, got object"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "a", **changes)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_role_names_the_nearest(tmp_path):
    make(tmp_path / "a")
    with pytest.raises(UsageError, match="did you mean 'weights'"):
        Artifact.load(tmp_path / "a").file("weight")
