"""What wrong input gets: one line, an exit code, and nothing changed on disk."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.cli.conftest import TINY, tree


@pytest.fixture
def refused(cli, tiny, earlier):
    """Run the tiny recipe with something wrong; return the error after checking that nothing was touched."""

    def run(*argv, code=2, before="", recipe=None, **changes):
        had = tree(earlier)
        words = ("ptq", recipe or tiny(**changes), "--work-dir", "work", "--benchmark-seconds", "0", *argv)
        result = cli(*words, before=before)
        assert result.code == code, result.err
        assert tree(earlier) == had
        return result.error

    return run


class TestUsage:
    @pytest.mark.parametrize(
        ("argv", "text"),
        [
            (["ptq"], "Missing argument 'recipe'; see razordeploy ptq --help"),
            (["ptq", "x.py", "--bakend", "openvino"], "No such option: --bakend"),
            (["ptqq"], "No such command 'ptqq'; did you mean 'ptq'?"),
            (["ptq", "x.py", "--max-drop", "much"], "Invalid value for '--max-drop'"),
            (["ptq", "x.py", "--max-drop", "-1"], "Invalid value for '--max-drop'"),
            (["ptq", "x.py", "--set", "seed"], "--set: expected KEY=VALUE, got 'seed'; for example --set"),
            (
                ["ptq", "ptq/digits_resnet9.py"],
                "no recipe 'ptq/digits_resnet9.py'; did you mean 'ptq/digits_resnet8.py'?",
            ),
            (["evaluate", "nowhere"], "expected an artifact at nowhere, found no manifest.json"),
            (["benchmark", "nowhere"], "expected an artifact at nowhere, found no manifest.json"),
            (["compare", "nowhere", "there"], "expected an artifact at nowhere, found no manifest.json"),
            ([], "expected a command; see razordeploy --help"),
        ],
    )
    def test_one_line(self, cli, argv, text):
        result = cli(*argv)
        assert (result.code, text in result.error) == (2, True), result.error

    def test_empty_backend_list_is_not_the_recipes(self, refused):
        assert refused("--backend", ",") == "no backend was asked for; --backend openvino,onnxruntime"

    def test_unknown_backend(self, refused):
        assert refused("--backend", "onnxruntime,openvin") == "unknown backend 'openvin'; did you mean 'openvino'?"


class TestCheckpoint:
    def test_missing(self, refused):
        assert "nowhere.pth" in refused("--checkpoint", "nowhere.pth")

    def test_truncated(self, refused, tmp_path):
        torch.save({"w": torch.ones(1000)}, tmp_path / "a.pth")
        (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:1500])
        assert "a.pth" in refused("--checkpoint", "a.pth")

    def test_code_is_not_run(self, refused, tmp_path):
        class Evil:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "ran",))

        with (tmp_path / "evil.pth").open("wb") as file:
            pickle.dump({"state_dict": Evil()}, file)
        text = refused("--checkpoint", "evil.pth")
        assert "evil.pth" in text
        assert not (tmp_path / "ran").exists()

    def test_keys_that_do_not_match(self, refused, tmp_path):
        torch.save({"0.weight": torch.ones(4, 3, 3, 3), "stem.bias": torch.ones(4)}, tmp_path / "a.pth")
        text = refused("--checkpoint", "a.pth")
        assert "'a.pth' does not match the model: 9 missing (0.bias, 1.weight, 1.bias, ...)" in text
        assert "1 unexpected (stem.bias)" in text

    def test_shape_that_does_not_match(self, refused, tmp_path, tiny):
        tiny()
        scope = {}
        exec(TINY, scope)
        torch.save(scope["net"](width=8).state_dict(), tmp_path / "a.pth")
        assert "0.weight 8x3x3x3, the model has 4x3x3x3" in refused("--checkpoint", "a.pth")


class TestRecipe:
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"quantise": {}}, "unknown key 'quantise' (did you mean 'quantize'?)"),
            ({"quantize": {"skp": []}}, "unknown key 'skp' in 'quantize'; did you mean 'skip'?"),
            ({"deploy": {"max_dorp": 1}}, "unknown key 'max_dorp' in 'deploy'; did you mean 'max_drop'?"),
            ({"calibration": {"samples": 3}}, "unknown key 'samples' in 'calibration'; did you mean 'num_samples'?"),
            (
                {"quantize": {"global_qconfig": {"a_observer": {"type": "MinMaxObservr"}}}},
                "unknown observer 'MinMaxObservr'; did you mean 'MinMaxObserver'?",
            ),
            (
                {"quantize": {"global_qconfig": {"w_fake_quant": {"type": "LearnableFakeQuantise"}}}},
                "unknown fake quant 'LearnableFakeQuantise'; did you mean 'LearnableFakeQuantize'?",
            ),
            ({"quantize": {"skip_ops": ["conv2"]}}, "unknown operation kind 'conv2'; did you mean 'conv2d'?"),
            ({"quantize": {"skip": ["backbone.*"]}}, "'backbone.*' matches no module of the model; known: 0, 2, 3"),
            ({"model": {"type": "tiny:nett"}}, "nett"),
            ({"model": {"type": "tiny:net", "widht": 3}}, "model 'tiny:net' cannot be built: TypeError"),
            ({"deploy": {"metric": "tiny:f1"}}, "deploy.metric 'tiny:f1' cannot be imported"),
            ({"deploy": {"output_names": ["a", "b"]}}, "deploy.output_names has 2 names, the model has 1 output"),
            ({"data": {"type": "digit"}}, "data: unknown type 'digit'; did you mean 'digits'?"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
    )
    def test_typo(self, refused, changes, text):
        if "deploy" in changes:
            changes = {"deploy": {"backends": ["onnxruntime"], "input_shapes": [(3, 8, 8)], **changes["deploy"]}}
        assert text in refused(**changes)

    @pytest.mark.parametrize(
        ("pair", "text"),
        [
            ("deploy.max_dorp=1", "unknown key 'max_dorp' in 'deploy'; did you mean 'max_drop'?"),
            ("quantise.skip=0", "unknown key 'quantise' (did you mean 'quantize'?)"),
            ("epochs=3", "--set epochs: nothing reads 'epochs'"),
            ("deploy.max_drop=much", "expected a number of at least 0 for 'deploy.max_drop', got str 'much'"),
        ],
    )
    def test_set(self, refused, pair, text):
        assert text in refused("--set", pair)

    def test_wrong_bits_for_the_engine(self, refused):
        text = refused(quantize={"global_qconfig": {"a_qscheme": {"bit": 4}}})
        assert "backend 'onnxruntime' runs 8 bits, the recipe asks for 4-bit activations" in text

    def test_metric_that_fails(self, refused, tmp_path):
        deploy = {"backends": ["onnxruntime"], "input_shapes": [(3, 8, 8)], "metric": "mine:metric"}
        (tmp_path / "mine.py").write_text("def metric(outputs, targets):\n    return outputs.nope\n")
        assert "deploy.metric 'mine:metric' failed: AttributeError" in refused(deploy=deploy)


class TestData:
    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ("torch.where(torch.arange(96)[:, None, None, None] == 3, torch.nan, x)", "NaN in 192 of "),
            ("torch.where(torch.arange(96)[:, None, None, None] == 3, torch.inf, x)", "infinity in 192 of "),
            ("x[:, :2]", "expected shape (N, 3, 8, 8), got (16, 2, 8, 8); the model takes 3 channels, the data has 2"),
            ("x.permute(0, 2, 3, 1)", "the channels come last: x.permute(0, 3, 1, 2)"),
            ("x[..., :4]", "expected shape (N, 3, 8, 8), got (16, 3, 8, 4)"),
            ("(x * 9).to(torch.uint8)", "expected float32, got uint8 (16, 3, 8, 8); scale and normalise"),
            ("x.nope", "data 'tiny:samples' failed for the train split: AttributeError"),
        ],
    )
    def test_calibration(self, refused, change, text):
        data = {"type": "tiny:samples", "change": change}
        calibration = {"num_samples": 96, "batch_size": 16}
        assert text in refused(data=data, calibration=calibration)

    def test_evaluation(self, refused):
        change = "x if split == 'train' else torch.where(torch.arange(96)[:, None, None, None] == 3, torch.nan, x)"
        text = refused(data={"type": "tiny:samples", "change": change})
        assert text.startswith("evaluation data: batch 0: NaN in 192 of 18432 values, first in sample 3")

    def test_no_sample(self, refused):
        assert "tiny:samples returned no sample for the train split" in refused(
            data={"type": "tiny:samples", "count": 0}
        )

    def folder(self, root: Path, broken: bool = False) -> dict[str, object]:
        for split in ("train", "test"):
            for name in ("a", "b"):
                (root / split / name).mkdir(parents=True)
                Image.new("RGB", (8, 8), (9, 9, 9)).save(root / split / name / "0.png")
        if broken:
            path = root / "train" / "a" / "0.png"
            path.write_bytes(path.read_bytes()[:40])
        return {"type": "image_folder", "root": str(root), "resize": 8, "crop": 8}

    def test_missing_folder(self, refused):
        data = {"type": "image_folder", "root": "nowhere"}
        assert refused(data=data).startswith("expected an image folder at nowhere, found nothing; set data=dict(")

    def test_empty_folder(self, refused, tmp_path):
        (tmp_path / "images").mkdir()
        assert "found 0 folders and no image" in refused(data={"type": "image_folder", "root": "images"})

    def test_unreadable_image(self, refused, tmp_path):
        text = refused(data=self.folder(tmp_path / "images", broken=True))
        assert "cannot read the image" in text
        assert "train/a/0.png" in text


class TestModel:
    def write(self, folder: Path, body: str) -> dict[str, object]:
        (folder / "odd.py").write_text(f"import torch\nfrom torch import nn\n\nclass Odd(nn.Module):\n{body}\n")
        return {"type": "odd:Odd"}

    def test_cannot_be_captured(self, refused, tmp_path):
        body = "    def forward(self, x):\n        if x.sum() > 0:\n            return x\n        return -x"
        text = refused(model=self.write(tmp_path, body))
        assert text.startswith("torch.export cannot capture Odd: ")
        assert f"at {tmp_path}/odd.py:6; make that line independent of tensor values" in text

    def test_does_not_run(self, refused, tmp_path):
        text = refused(model=self.write(tmp_path, "    def forward(self, x):\n        return x.reshape(5, 7)"))
        assert "Odd does not run on the example inputs of shape [(2, 3, 8, 8)]: RuntimeError: shape '[5, 7]'" in text

    def test_half_precision(self, refused, tmp_path):
        body = "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(8, 4).half()"
        body += "\n    def forward(self, x):\n        return self.fc(x)"
        text = refused(model=self.write(tmp_path, body))
        assert text == "expected float32 weights, got float16 in 'fc.weight' of Odd; convert them: model.float()"

    def test_nan_inside(self, refused, tmp_path):
        body = "    def __init__(self):\n        super().__init__()\n        self.fc = nn.Linear(8, 4)"
        body += "\n    def forward(self, x):\n        return self.fc(torch.log(x.abs() * 0 - 1)).mean((1, 2))"
        text = refused(model=self.write(tmp_path, body))
        assert text.startswith("calibration produced NaN or Inf at 'log' inside the network; run the float model")

    def test_no_onnx_form(self, refused, tmp_path):
        body = "    def forward(self, x):\n        return torch.linalg.eigvals(x).real"
        assert refused(model=self.write(tmp_path, body)).startswith("the graph has no ONNX form: ")


class TestStorage:
    def test_no_permission(self, cli, tiny):
        # Nobody may make a folder there, root included.
        result = cli("ptq", tiny(), "--work-dir", "/sys/razordeploy")
        assert result.code == 5
        assert "/sys/razordeploy: no permission; change its permissions or give another folder" in result.error

    def test_a_file_in_its_place(self, cli, tiny, tmp_path):
        (tmp_path / "file").write_text("mine")
        result = cli("ptq", tiny(), "--work-dir", "file")
        assert (result.code, result.error) == (2, "expected a folder at file, found a file: file; give another")
        assert (tmp_path / "file").read_text() == "mine"

    def test_locked(self, cli, tiny, earlier):
        from razordeploy.workdir import WorkDir

        had = tree(earlier)
        with WorkDir(earlier):
            result = cli("ptq", tiny(), "--work-dir", "work")
        assert result.code == 5
        assert "work is in use by process " in result.error
        assert tree(earlier) == had

    @pytest.mark.parametrize("backends", ["openvino", "onnxruntime", "openvino,onnxruntime"])
    def test_disk_full(self, refused, backends):
        # The size of a file is bounded as a full disk would; the signal that comes with it is off, as in python.
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
        text = refused("--backend", backends, code=5, before=limit)
        assert "cannot write" in text

    def test_full_between_two_backends(self, cli, tiny, earlier):
        had = tree(earlier / "onnxruntime")
        full = (
            "import dataclasses, errno, razordeploy.backends.onnxruntime.backend as b\n"
            "def export(job): raise OSError(errno.ENOSPC, 'No space left on device', 'model.onnx')\n"
            "b.BACKEND = dataclasses.replace(b.BACKEND, export=export)"
        )
        argv = ("ptq", tiny(), "--work-dir", "work", "--backend", "openvino,onnxruntime", "--benchmark-seconds", "0")
        result = cli(*argv, before=full)
        assert result.code == 5
        assert result.error.startswith("onnxruntime: cannot write model.onnx: the disk is full; free some space")
        assert tree(earlier / "onnxruntime") == had
        assert not list(earlier.glob(".*tmp*"))

    def test_out_of_memory(self, refused):
        before = "import razordeploy.pipeline as p\ndef capture(*a, **k): raise MemoryError\np.capture = capture"
        text = refused(code=5, before=before)
        assert text == "out of memory; lower calibration.batch_size, or close other programs"


class TestDependency:
    MISSING = (
        "import razordeploy.backends.registry as r, razordeploy.lazy as lazy\n"
        "real = lazy.available\n"
        "r.available = lambda name: name != 'openvino' and real(name)"
    )

    def test_alone(self, refused):
        text = refused("--backend", "openvino", code=3, before=self.MISSING)
        assert text == "backend 'openvino' needs openvino; pip install 'razordeploy[openvino]'"

    def test_others_still_run(self, cli, tiny, tmp_path):
        import json

        argv = ("ptq", tiny(), "--backend", "openvino,onnxruntime", "--work-dir", "w", "--benchmark-seconds", "0")
        result = cli(*argv, before=self.MISSING)
        assert result.code == 3
        assert result.error == "openvino: backend 'openvino' needs openvino; pip install 'razordeploy[openvino]'"
        report = json.loads((tmp_path / "w" / "report.json").read_text())["backends"]
        assert report["openvino"] == {
            "passed": False,
            "error": "backend 'openvino' needs openvino; pip install 'razordeploy[openvino]'",
            "exit_code": 3,
        }
        assert report["onnxruntime"]["passed"] is True
        assert (tmp_path / "w" / "onnxruntime" / "manifest.json").is_file()

    def test_one_backend_fails(self, cli, tiny, tmp_path):
        broken = (
            "import dataclasses, razordeploy.backends.openvino.backend as b\n"
            "def export(job): raise ZeroDivisionError('by zero')\n"
            "b.BACKEND = dataclasses.replace(b.BACKEND, export=export)"
        )
        argv = ("ptq", tiny(), "--backend", "openvino,onnxruntime", "--work-dir", "w", "--benchmark-seconds", "0")
        result = cli(*argv, before=broken)
        assert result.code == 70
        assert result.error.startswith("openvino: internal: ZeroDivisionError: by zero; run with RAZORDEPLOY_DEBUG=1")
        assert (tmp_path / "w" / "onnxruntime" / "manifest.json").is_file()
        assert not (tmp_path / "w" / "openvino").exists()


class TestInternal:
    BEFORE = "import razordeploy.pipeline as p\ndef capture(*a, **k): raise KeyError('lost')\np.capture = capture"

    def test_no_traceback(self, refused):
        text = refused(code=70, before=self.BEFORE)
        assert text == "internal: KeyError: 'lost'; run with RAZORDEPLOY_DEBUG=1 for the traceback and report it"

    def test_traceback_on_request(self, cli, tiny):
        result = cli("ptq", tiny(), before=self.BEFORE, env={"RAZORDEPLOY_DEBUG": "1"})
        assert result.code == 70
        assert "Traceback" in result.err
        assert "KeyError: 'lost'" in result.err
