"""``rd.ptq`` and ``rd.load_engine`` with a bare module and arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.errors import (
    DataError,
    MissingDependency,
    ModelError,
    RecipeError,
    StorageError,
    UsageError,
)
from razordeploy.workdir import WorkDir


def net(width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)),
    )


def images(count: int = 32, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


X = images()
LABELS = torch.arange(32) % 5


def quantized(out_dir, calibration, model=None, **options):
    options.setdefault("example_inputs", (X[:2],))
    return rd.ptq(
        model or net(), calibration, backend=options.pop("backend", "onnxruntime"), out_dir=out_dir, **options
    )


def scales(artifact):
    return json.loads(artifact.file("plan").read_text())["groups"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """An engine of ``net`` calibrated on ``X`` as a list of one batch."""
    return quantized(tmp_path_factory.mktemp("reference"), [X])


CALIBRATIONS = {
    "arrays": lambda: [X.numpy()],
    "float64": lambda: [X.double().numpy()],
    "pairs": lambda: [(X, LABELS)],
    "lists of labels": lambda: [(X, LABELS.tolist())],
    "tuples": lambda: [(X,)],
    "dict": lambda: [{"image": X, "label": LABELS}],
    "one tensor": lambda: X,
    "one array": lambda: X.numpy(),
    "generator": lambda: (x for x in [X]),
    "loader": lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, LABELS), batch_size=32),
    "dataset": lambda: torch.utils.data.TensorDataset(X, LABELS),
    "mm": lambda: [{"inputs": list(X), "data_samples": []}],
}


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_every_form_of_the_same_data_gives_the_same_engine(name, reference, tmp_path):
    artifact = quantized(tmp_path, CALIBRATIONS[name]())
    assert scales(artifact) == scales(reference)
    artifact.verify()


class TestEngine:
    def test_runs_like_the_model(self, reference):
        engine = rd.load_engine(reference)
        model = net().eval()
        with torch.no_grad():
            expected = model(X).numpy()
        found = engine(X.numpy())
        assert isinstance(found, np.ndarray)
        assert found.shape == (32, 5)
        assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
        assert np.abs(found - expected).max() > 0

    @pytest.mark.parametrize("form", [lambda a: a, lambda a: a.path, lambda a: str(a.path), lambda a: a.path.parent])
    def test_loads_from(self, reference, form):
        assert rd.load_engine(form(reference)).artifact.id == reference.id

    def test_coverage(self, reference):
        coverage = rd.load_engine(reference).coverage()
        assert coverage.planned >= 3
        assert coverage.int8 == coverage.planned
        assert all(op.reason for op in coverage.float_ops)

    @pytest.mark.parametrize("batch", [1, 5])
    def test_benchmark(self, reference, batch):
        latency = rd.load_engine(reference, threads=1).benchmark(batch=batch, seconds=0.05)
        assert 0 < latency.p50_ms <= latency.p90_ms <= latency.p99_ms
        assert latency.throughput == pytest.approx(1000 * batch / latency.p50_ms)
        assert len(latency.samples_ms) >= 20

    @pytest.mark.parametrize(
        ("inputs", "text"),
        [
            ((), r"expected 1 input \(\w+\), got 0"),
            ((X.numpy(), X.numpy()), r"expected 1 input \(\w+\), got 2"),
            ((X.numpy()[0],), r"expected shape \(N, 3, 8, 8\), got \(3, 8, 8\)"),
            ((images(4, 1).numpy(),), r"expected shape \(N, 3, 8, 8\), got \(4, 1, 8, 8\)"),
            ((X.numpy()[:0],), r"expected at least one sample, got shape \(0, 3, 8, 8\)"),
            ((X.byte().numpy(),), "expected float32, got uint8; scale and normalise"),
            ((X.long().numpy(),), "expected float32, got int64"),
            (("x",), r"expected shape \(N, 3, 8, 8\), got \(\)"),
            ((X.clone().requires_grad_(),), "expected an array, got Tensor"),
        ],
    )
    def test_refuses(self, reference, inputs, text):
        with pytest.raises(DataError, match=text):
            rd.load_engine(reference)(*inputs)

    def test_takes_other_widths_and_tensors(self, reference):
        engine = rd.load_engine(reference)
        expected = engine(X.numpy())
        assert np.array_equal(engine(X.double().numpy()), expected)
        assert np.array_equal(engine(X), expected)
        assert np.array_equal(engine(X.numpy()[:, :, ::-1, ::-1][:, :, ::-1, ::-1]), expected)

    def test_changed_file(self, reference, tmp_path):
        import shutil

        folder = shutil.copytree(reference.path, tmp_path / "copy")
        with (folder / "model.onnx").open("ab") as file:
            file.write(b"x")
        with pytest.raises(UsageError, match=r"the file model\.onnx \(engine\) was changed after it was written"):
            rd.load_engine(folder)

    def test_nothing_there(self, tmp_path):
        with pytest.raises(UsageError, match=r"expected an artifact at .*, found no manifest\.json"):
            rd.load_engine(tmp_path)


class TestBackends:
    def test_a_sequence_gives_a_dict_calibrated_once(self, tmp_path):
        read = []

        def data():
            for i in range(4):
                read.append(i)
                yield images(8, seed=i)

        found = quantized(tmp_path, data(), backend=["openvino", "onnxruntime"])
        assert list(found) == ["openvino", "onnxruntime"]
        assert read == [0, 1, 2, 3]
        for name, artifact in found.items():
            assert artifact.path == tmp_path / name
            assert rd.load_engine(artifact)(X.numpy()).shape == (32, 5)
        with pytest.raises(UsageError, match="holds 2 engines; give one: "):
            rd.load_engine(tmp_path)

    @pytest.mark.parametrize("backend", [[], ()])
    def test_none(self, tmp_path, backend):
        with pytest.raises(UsageError, match="no backend was asked for"):
            quantized(tmp_path / "out", [X], backend=backend)
        assert not (tmp_path / "out").exists()

    def test_unknown(self, tmp_path):
        with pytest.raises(UsageError, match="unknown backend 'onnxruntim'; did you mean 'onnxruntime'?"):
            quantized(tmp_path / "out", [X], backend="onnxruntim")
        assert not (tmp_path / "out").exists()

    def test_missing_one_of_two(self, tmp_path, monkeypatch):
        from razordeploy.backends import registry

        monkeypatch.setattr(registry, "available", lambda name: name != "openvino")
        with pytest.raises(MissingDependency, match=r"pip install 'razordeploy\[openvino\]'"):
            quantized(tmp_path, [X], backend=["openvino", "onnxruntime"])
        # The other one was made, and the report has both.
        assert rd.load_engine(tmp_path / "onnxruntime")
        report = json.loads((tmp_path / "report.json").read_text())["backends"]
        assert (report["openvino"]["exit_code"], report["onnxruntime"]["passed"]) == (3, True)


class TestModelIsLeftAlone:
    def test_everything(self, tmp_path):
        model = net()
        model.train()
        model[1].eval()  # a frozen batch norm
        model[3].weight.requires_grad_(False)
        calls = []
        handle = model[0].register_forward_hook(lambda *a: calls.append(1))
        before = {k: v.clone() for k, v in model.state_dict().items()}
        identities = [(id(p), p.data_ptr(), p.stride(), p.requires_grad, p.dtype) for p in model.parameters()]
        modes = [m.training for m in model.modules()]
        quantized(
            tmp_path,
            [X],
            model,
            backend=["openvino", "onnxruntime"],
            evaluation=[(X, LABELS)],
            deploy={"max_drop": 100},
        )
        assert [m.training for m in model.modules()] == modes
        assert [(id(p), p.data_ptr(), p.stride(), p.requires_grad, p.dtype) for p in model.parameters()] == identities
        assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
        assert list(model[0]._forward_hooks) == [handle.id]
        assert set(model.state_dict()) == set(before)
        model(X).sum().backward()  # still trains
        assert model[0].weight.grad is not None

    def test_global_random_state(self, tmp_path):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
        torch.manual_seed(7)
        np.random.seed(7)
        state = torch.get_rng_state(), np.random.get_state()[1].copy()
        quantized(tmp_path, [X], model)
        assert torch.equal(torch.get_rng_state(), state[0])
        assert np.array_equal(np.random.get_state()[1], state[1])


class Two(nn.Module):
    """Two inputs of different shape, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 4, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.a(left) + self.b(right)
        return y, y.mean((2, 3))


class Ids(nn.Module):
    """Integer inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.linear = nn.Embedding(10, 8), nn.Linear(8, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.linear(self.embedding(ids).mean(1))


class TestModels:
    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    def test_two_inputs_and_outputs(self, tmp_path, backend):
        torch.manual_seed(0)
        model, right = Two().eval(), images(32, 2)
        # By name, in the other order.
        artifact = quantized(
            tmp_path, [{"right": right, "left": X}], model, backend=backend, example_inputs=(X[:2], right[:2])
        )
        assert [s.name for s in artifact.inputs] == ["left", "right"]
        found = rd.load_engine(artifact)(X.numpy(), right.numpy())
        assert isinstance(found, tuple)
        with torch.no_grad():
            expected = model(X, right)
        for y, reference in zip(found, expected, strict=True):
            assert np.abs(y - reference.numpy()).max() < 0.1 * reference.abs().max()

    def test_wrong_names(self, tmp_path):
        data = [{"left": X, "rigth": images(32, 2)}]
        with pytest.raises(DataError, match="expected the inputs left, right, got a dict with left, rigth"):
            quantized(tmp_path, data, Two(), example_inputs=(X[:2], images(2, 2)))

    @pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
    def test_integer_inputs(self, tmp_path, backend):
        torch.manual_seed(0)
        model, ids = Ids().eval(), torch.randint(0, 10, (32, 6))
        artifact = quantized(tmp_path, [ids], model, backend=backend, example_inputs=(ids[:2],))
        assert artifact.inputs[0].dtype == "int64"
        engine = rd.load_engine(artifact)
        with torch.no_grad():
            expected = model(ids).numpy()
        assert np.abs(engine(ids.numpy()) - expected).max() < 0.1 * np.abs(expected).max()
        assert engine.benchmark(seconds=0.01).p50_ms > 0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precisions(self, tmp_path, dtype):
        name = str(dtype).removeprefix("torch.")
        with pytest.raises(ModelError, match=rf"expected float32 weights, got {name} in '0\.weight' of Sequential"):
            quantized(tmp_path, [X], net().to(dtype))

    def test_nothing_to_quantize(self, tmp_path):
        artifact = quantized(tmp_path, [X], nn.Sequential(nn.AvgPool2d(8), nn.Flatten()))
        assert rd.load_engine(artifact).coverage().planned == 0
        notes = json.loads((tmp_path / "report.json").read_text())["warnings"]
        assert notes == ["onnxruntime: no operation of the model can be quantized: the engine computes in float"]

    def test_arrays_as_examples(self, tmp_path, reference):
        artifact = quantized(tmp_path, [X.numpy()], example_inputs=X[:2].double().numpy())
        assert scales(artifact) == scales(reference)

    def test_captured_fails_with_the_line(self, tmp_path):
        class Odd(nn.Module):
            def forward(self, x):
                return x * 2 if x.sum() > 0 else x

        with pytest.raises(
            ModelError, match=r"torch\.export cannot capture Odd: .* at .*test_api\.py:\d+; make that line"
        ):
            quantized(tmp_path, [X], Odd())


class TestRefuses:
    @pytest.mark.parametrize(
        ("calibration", "text"),
        [
            ([], "calibration data: expected at least one batch of data, got none"),
            (iter([]), "calibration data: expected at least one batch of data, got none"),
            ([X, X.where(X < 1, torch.nan)], "calibration data: batch 1: NaN in "),
            ([X, X.where(X < 1, torch.inf)], "calibration data: batch 1: infinity in "),
            ([images(32, 4)], "the model takes 3 channels, the data has 4"),
            ([X[0]], "the batch axis is missing"),
            ([X.half()], "expected float32, got float16"),
            ([X.byte()], "expected float32, got uint8"),
            ([(X, X)], "expected 1 model inputs, got 2"),
            (["image.png"], "expected a tensor, a numpy array"),
            ([None], "batch 0: expected a tensor, .* got None"),
            (3, "expected an iterable of batches or one array"),
            ("folder", "expected an iterable of batches or one array"),
            ({"x": X}, "wrap a single batch in a list"),
            ((1 / 0 for _ in range(1)), "the loader failed at batch 0: ZeroDivisionError: division by zero"),
        ],
    )
    def test_calibration(self, tmp_path, calibration, text):
        with pytest.raises(DataError, match=text):
            quantized(tmp_path, calibration)
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]

    @pytest.mark.parametrize(
        ("evaluation", "text"),
        [
            ([X], "expected labels to evaluate on, got none"),
            ([], "evaluation data: expected at least one batch"),
            ([(X.where(X < 1, torch.nan), LABELS)], "evaluation data: batch 0: NaN in "),
            ([(X, LABELS + 1)], "expected labels from 0 to 4, got 1 to 5"),
            ([(X, LABELS[:3])], "evaluation data: batch 0: expected 32 targets, got 3"),
        ],
    )
    def test_evaluation(self, tmp_path, evaluation, text):
        with pytest.raises(DataError, match=text):
            quantized(tmp_path, [X], evaluation=evaluation)
        assert [p.name for p in tmp_path.iterdir()] == [".lock"]

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"deploy": {"max_dorp": 1}}, "unknown key 'max_dorp' in 'deploy'; did you mean 'max_drop'?"),
            ({"quantize": {"skip": ["conv"]}}, "'conv' matches no module of the model; known: 0, 2, 3"),
            ({"quantize": {"skip_ops": ["convv2d"]}}, "unknown operation kind 'convv2d'; did you mean 'conv2d'?"),
            ({"deploy": {"input_names": ["a", "b"]}}, "deploy.input_names has 2 names, the model has 1 inputs"),
            ({"metric": "top2", "evaluation": [(X, LABELS)]}, "unknown metric 'top2'"),
        ],
    )
    def test_options(self, tmp_path, options, text):
        with pytest.raises(RecipeError) as caught:
            quantized(tmp_path, [X], **options)
        assert text in str(caught.value)

    def test_no_module(self, tmp_path):
        with pytest.raises(UsageError, match=r"expected a torch\.nn\.Module, got function"):
            quantized(tmp_path, [X], net)

    def test_a_folder_in_use(self, tmp_path):
        with WorkDir(tmp_path), pytest.raises(StorageError, match="is in use by process"):
            quantized(tmp_path, [X])

    def test_gap_over_the_limit_is_written(self, tmp_path):
        model = net()
        # The classes differ by less than the last layer's grid can tell.
        model[7].weight.data = 1 + model[7].weight.data * 1e-4
        model[7].bias.data.zero_()
        labels = model.eval()(X).argmax(1)
        artifact = quantized(tmp_path, [X], model, evaluation=[(X, labels)], deploy={"max_drop": 0.5})
        entry = json.loads((tmp_path / "report.json").read_text())["backends"]["onnxruntime"]
        assert entry["metrics"]["float"]["top1"] == 100
        assert entry["gap"]["float_to_engine"] > 0.5
        assert entry["passed"] is False
        assert entry["failures"] == [f"the engine loses {entry['gap']['float_to_engine']:.2f} points, over 0.5"]
        artifact.verify()
