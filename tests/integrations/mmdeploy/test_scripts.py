"""mmdeploy's scripts make, evaluate and time int8 engines."""

from __future__ import annotations

import json
import re
from collections import Counter

import onnx
import pytest

from tests.integrations.mmdeploy.conftest import deploy_config, quantized_world, run_script

ENGINE = {"openvino": "end2end.xml", "onnxruntime": "end2end.onnx", "tensorrt": "end2end.onnx"}


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime", "tensorrt"])
def test_deploy_test_and_profile(world, tmp_path, backend):
    config = deploy_config(tmp_path, backend)
    out = tmp_path / "out"
    words = ["deploy", config, world.model_cfg, world.checkpoint, world.image, "--work-dir", out, "--dump-info"]
    done = run_script(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = done.stdout + done.stderr
    assert f"visualize {backend} model success" in told
    assert (out / f"output_{backend}.jpg").is_file()
    assert {"deploy.json", "pipeline.json", "detail.json"} <= {path.name for path in out.iterdir()}
    if backend != "openvino":
        nodes = Counter(node.op_type for node in onnx.load(out / "end2end.onnx").graph.node)
        assert nodes["DequantizeLinear"] > nodes["QuantizeLinear"] > 10
        assert not any(n.op_type == "QuantizeLinear" for n in onnx.load(out / "end2end_float.onnx").graph.node)
    if backend == "tensorrt":
        assert "trtexec" in told
        assert "no tensorrt engine was built" in told
    else:
        covered = re.search(r"(\d+) of (\d+) planned operations run in int8", told)
        assert covered
        assert covered[1] == covered[2]
    model = out / ENGINE[backend]
    words = ["test", config, world.model_cfg, "--model", model, "--work-dir", tmp_path / "test", "--batch-size", "4"]
    done = run_script(*words, "--speed-test", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(path.read_text()) for path in (tmp_path / "test").rglob("*.json")]
    assert next(r["accuracy/top1"] for r in results if "accuracy/top1" in r) > 90
    done = run_script("profile", config, world.model_cfg, world.images, "--model", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "FPS" in done.stdout + done.stderr


def test_a_checkpoint_of_quantization_aware_training(world, tmp_path):
    """MMArchitectureQuant's config and checkpoint go through the three scripts as a plain model's do."""
    quantized = quantized_world(world, tmp_path, "OpenVINOQuantizer")
    config = deploy_config(tmp_path, "openvino")
    out = tmp_path / "out"
    words = ["deploy", config, quantized.model_cfg, quantized.checkpoint, world.image, "--work-dir", out, "--dump-info"]
    done = run_script(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    told = done.stdout + done.stderr
    assert "no calibration is needed" in told
    assert "visualize pytorch model success" in told
    model = out / "end2end.xml"
    words = [
        "test",
        config,
        quantized.model_cfg,
        "--model",
        model,
        "--work-dir",
        tmp_path / "test",
        "--batch-size",
        "4",
    ]
    done = run_script(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(path.read_text()) for path in (tmp_path / "test").rglob("*.json")]
    assert next(r["accuracy/top1"] for r in results if "accuracy/top1" in r) > 90
    done = run_script("profile", config, quantized.model_cfg, world.images, "--model", model, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
