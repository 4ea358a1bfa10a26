"""Single-stage detectors become int8 engines by the command line alone; what cannot is refused with the reason."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.detection.coco import draw, recipe

FAMILIES = {
    "retinanet": "retinanet/retinanet_r18_fpn_1x_coco.py",
    "fcos": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "gfl": "gfl/gfl_r50_fpn_1x_coco.py",
    "yolox": "yolox/yolox_tiny_8xb8-300e_coco.py",
    "rtmdet": "rtmdet/rtmdet_tiny_8xb32-300e_coco.py",
    "yolov3": "yolo/yolov3_mobilenetv2_8xb24-320-300e_coco.py",
    "ssd": "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py",
}
TWO_CLASSES = "model = dict(bbox_head=dict(num_classes=2))"
SMALL = """
model = dict(
    backbone=dict(frozen_stages=-1, norm_eval=False, norm_cfg=dict(requires_grad=True)),
    neck=dict(out_channels=64),
    bbox_head=dict(num_classes=2, in_channels=64, feat_channels=64, stacked_convs=1),
)
"""


def run(*words: str) -> int:
    from razordeploy.cli.main import main

    with pytest.raises(SystemExit) as end:
        main(words)
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("coco")
    draw(root, "train", 64)
    draw(root, "val", 16)
    return root


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())["backends"]
    return found


def opened(file: Path) -> tuple[Any, Any]:
    """The recipe's detector, in training mode, and batches of its training images."""
    from razordeploy.capture.detector import build_detector
    from razordeploy.config.recipe import load_recipe
    from razordeploy.data.mm import open_loader, registry_scope

    found = load_recipe(file)
    torch.manual_seed(0)
    model: Any = build_detector(found).train()
    with registry_scope("mmdet"):
        shuffled = {**(found.train_dataloader or {}), "sampler": {"type": "DefaultSampler", "shuffle": True}}
        loader = open_loader(shuffled, 0)
    return model, loader


def fitted(file: Path) -> Path:
    """Random weights whose batch norms fit the data: without, activations fall to 1e-10 over the layers."""
    model, loader = opened(file)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        for data in itertools.islice(loader, 4):
            model._forward(model.data_preprocessor(data, False)["inputs"])
    path = file.with_suffix(".pth")
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(data, tmp_path, family):
    file = recipe(data, FAMILIES[family], extra=TWO_CLASSES)
    words = ["--checkpoint", str(fitted(file)), "--work-dir", str(tmp_path), "--benchmark-seconds", "0"]
    assert run("ptq", str(file), *words) == 0
    for entry in report(tmp_path).values():
        coverage = entry["coverage"]
        assert coverage["int8"] >= 0.97 * coverage["planned"] > 40
        # Random depthwise networks amplify every rounding: the engine is held to be closer than quantization itself.
        rounding = min(layer["sqnr_db"] for layer in entry["layers"] if layer["sqnr_db"] is not None)
        assert entry["parity"]["sqnr_db"] is None or entry["parity"]["sqnr_db"] > min(25, rounding + 5)
        assert set(entry["metrics"]) == {"float", "simulated", "engine"}
        assert next(iter(entry["metrics"]["engine"])) == "bbox_mAP"


def trained(file: Path, epochs: int = 10) -> Path:
    """A detector of the recipe that has learned the two shapes."""
    model, loader = opened(file)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    for _ in range(epochs):
        for data in loader:
            batch = model.data_preprocessor(data, True)
            loss, _ = model.parse_losses(model.loss(batch["inputs"], batch["data_samples"]))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimizer.step()
    path = file.with_suffix(".pth")
    torch.save(model.state_dict(), path)
    return path


def test_average_precision_of_a_detector_that_detects(data, tmp_path):
    file = recipe(data, FAMILIES["retinanet"], extra=SMALL)
    weights = trained(file)
    words = ["--checkpoint", str(weights), "--work-dir", str(tmp_path), "--benchmark-seconds", "0", "--max-drop", "2"]
    assert run("ptq", str(file), *words) == 0
    for entry in report(tmp_path).values():
        scores = {side: entry["metrics"][side]["bbox_mAP"] for side in ("float", "simulated", "engine")}
        assert scores["float"] > 15
        assert abs(scores["float"] - scores["engine"]) <= 2
        assert entry["metrics"]["engine"]["bbox_mAP_50"] > scores["engine"]
    assert run("evaluate", str(tmp_path / "onnxruntime")) == 0
    words[3] = str(tmp_path / "qat")
    options = [
        "--set",
        "qat.epochs=1",
        "qat.lr=1e-4",
        "qat.optimizer=adamw",
        "--backend",
        "onnxruntime",
        "--max-drop",
        "5",
    ]
    assert run("qat", str(file), *words, *options) == 0
    (entry,) = report(tmp_path / "qat").values()
    assert entry["metrics"]["engine"]["bbox_mAP"] > 15
    assert abs(entry["gap"]["simulated_to_engine"]) <= 1


def test_boxes_of_an_engine_are_those_of_mmdet_itself(data, tmp_path):
    from mmdet.structures import DetDataSample

    from razordeploy.capture.build import build_model
    from razordeploy.capture.detector import build_detector
    from razordeploy.config.recipe import load_recipe

    options = "model = dict(bbox_head=dict(num_classes=2), test_cfg=dict(score_thr=0.0, max_per_img=20))"
    found = load_recipe(recipe(data, FAMILIES["retinanet"], extra=options))
    built = build_model(found)
    torch.manual_seed(found.seed)
    detector: Any = build_detector(found).eval()
    detector.load_state_dict(built.module.state_dict())
    x = torch.randn(1, 3, 96, 96)
    meta = {"img_shape": (96, 90), "ori_shape": (192, 180), "scale_factor": (0.5, 0.5), "batch_input_shape": (96, 96)}
    assert built.dense is not None
    with torch.no_grad():
        expected = detector.predict(x, [DetDataSample(metainfo=meta)])[0].pred_instances
        (boxes,) = built.dense.decode(built.module(x), [meta])
    assert len(boxes) == len(expected) == 20
    assert torch.equal(boxes.bboxes, expected.bboxes) and torch.equal(boxes.labels, expected.labels)


@pytest.mark.parametrize("family", ["retinanet", "rtmdet"])
def test_quantization_aware_training_takes_the_heads_own_losses(data, tmp_path, family):
    file = recipe(data, FAMILIES[family], extra=TWO_CLASSES + "\nqat = dict(epochs=1, lr=1e-3, batch_size=16)")
    words = ["--work-dir", str(tmp_path), "--backend", "onnxruntime", "--benchmark-seconds", "0"]
    assert run("qat", str(file), *words) == 0
    (entry,) = report(tmp_path).values()
    assert entry["coverage"]["int8"] == entry["coverage"]["planned"] > 80
    log = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert "loss_bbox" in log and "loss_cls" in log


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py", "FasterRCNN has two stages"),
        ("detr/detr_r50_8xb2-150e_coco.py", "DETR is a transformer over queries"),
    ],
)
def test_what_cannot_be_a_static_graph_is_refused(data, tmp_path, capsys, base, message):
    assert run("ptq", str(recipe(data, base)), "--work-dir", str(tmp_path / "w")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "RetinaNet" in error and error.count("\n") == 1
    assert not (tmp_path / "w" / "report.json").exists()


def test_an_image_that_does_not_fit_is_refused(data, tmp_path, capsys):
    file = recipe(data, FAMILIES["yolox"], extra=TWO_CLASSES)
    # Nothing resizes: the pictures are of 96 pixels.
    text = file.read_text().replace('    dict(type="Resize", scale=(96, 96), keep_ratio=True),\n', "")
    file.write_text(text.replace("input_shape=(3, 96, 96)", "input_shape=(3, 64, 96)").replace(', "scale_factor"', ""))
    assert run("ptq", str(file), "--work-dir", str(tmp_path / "w")) == 2
    error = capsys.readouterr().err
    assert "expected images that fit into (3, 64, 96), got (3, 96, 96)" in error and "take a square" in error


def test_padding_is_right_and_below():
    from razordeploy.data.boxes import _padded

    images = torch.ones(2, 3, 4, 5)
    padded = _padded(images, (3, 6, 8), 7.0, [])
    assert padded.shape == (2, 3, 6, 8)
    assert torch.equal(padded[:, :, :4, :5], images)
    assert np.isclose(float(padded[:, :, 4:].mean()), 7.0) and np.isclose(float(padded[:, :, :, 5:].mean()), 7.0)
