"""What algorithms learn arrives in the engines: integers, biases and scales; the float twin stays the float model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import razordeploy as rd
from razordeploy.errors import RecipeError


def net():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    with torch.no_grad():
        conv.weight[:, 0] = 0  # nothing reads the channel with the large values
    return nn.Sequential(conv, nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()


def images(seed=1):
    values = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return values * torch.tensor([30.0, 1, 1]).view(1, 3, 1, 1)


def made(folder, backend, algorithms):
    quantize = {"algorithms": algorithms} if algorithms else None
    return rd.ptq(net(), images(), example_inputs=(images()[:2],), backend=backend, out_dir=folder, quantize=quantize)


def floats(artifact):
    engine = rd.load_engine(artifact)
    return engine(images(2).numpy())


@pytest.mark.parametrize("backend", ("openvino", "onnxruntime", "academic"))
def test_engine_is_the_improved_simulation(backend, tmp_path):
    algorithms = ["RangeSearch", {"type": "AdaRound", "steps": 20}, "BiasCorrection"]
    artifact = made(tmp_path / "a", backend, algorithms)
    report = json.loads((tmp_path / "a" / "report.json").read_text())["backends"][backend]
    assert report["parity"]["sqnr_db"] is None or report["parity"]["sqnr_db"] > 40
    assert report["seconds"]["improve"] > 0
    plain = made(tmp_path / "b", backend, [])
    with torch.inference_mode():
        expected = net()(images(2)).numpy()
    error = [float(np.square(floats(a) - expected).sum()) for a in (artifact, plain)]
    assert error[0] < error[1] / 2


def test_float_twin_is_the_float_model(tmp_path):
    import onnxruntime

    artifact = made(tmp_path, "onnxruntime", [{"type": "AdaRound", "steps": 20}, "FastBiasCorrection"])
    session = onnxruntime.InferenceSession(str(artifact.path / "float.onnx"))
    found = session.run(None, {session.get_inputs()[0].name: images(2).numpy()})[0]
    with torch.inference_mode():
        assert np.allclose(found, net()(images(2)).numpy(), atol=1e-5)


def test_stored_integers_are_the_learned_ones(tmp_path):
    import onnx
    from onnx import numpy_helper

    integers = []
    for folder, algorithms in (("a", [{"type": "AdaRound", "steps": 60}]), ("b", [])):
        artifact = made(tmp_path / folder, "onnxruntime", algorithms)
        graph = onnx.load(artifact.path / "model.onnx").graph
        integers.append(
            {
                t.name: numpy_helper.to_array(t)
                for t in graph.initializer
                if t.data_type == onnx.TensorProto.INT8 and t.dims
            }
        )
    weights = [name for name, value in integers[0].items() if value.ndim > 1]
    assert len(weights) == 3 and integers[0].keys() == integers[1].keys()
    moved = [np.abs(integers[0][n].astype(int) - integers[1][n]) for n in weights]
    assert max(m.max() for m in moved) == 1 and all(m.sum() > 0 for m in moved)


def test_unknown_algorithm_is_named_before_anything_is_done(tmp_path):
    with pytest.raises(RecipeError, match="unknown algorithm 'AdaRond'; did you mean 'AdaRound'"):
        made(tmp_path, "academic", ["AdaRond"])
    assert not (tmp_path / "academic").exists()


def test_a_generator_is_kept_for_the_algorithms(tmp_path):
    artifact = rd.ptq(
        net(),
        (x for x in images().split(16)),
        example_inputs=(images()[:2],),
        backend="academic",
        out_dir=tmp_path,
        quantize={"algorithms": ["FastBiasCorrection"]},
    )
    assert artifact.path.is_dir()
