"""A small classifier with images that it labels itself, in the environment that mmdeploy lives in."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = Path(__file__).with_name("scripts.py")
HERE = importlib.util.find_spec("mmdeploy") is not None


def pytest_collection_modifyitems(items):
    reason = "needs an environment with mmdeploy: tools/mmdeploy_env.sh 1.3.1 (or 1.0.0)"
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.filterwarnings("ignore"))  # mmcv, mmpretrain and mmdeploy have many
            item.add_marker(pytest.mark.timeout(1800))  # each script starts a handful of processes, each with PyTorch
            if not HERE:
                item.add_marker(pytest.mark.skip(reason=reason))


def codebase():
    return "mmpretrain" if importlib.util.find_spec("mmpretrain") else "mmcls"


MODEL = """
default_scope = "{scope}"
model = {model}
data_preprocessor = dict(mean=[127.5] * 3, std=[64.0] * 3, to_rgb=True, num_classes=4)
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="{pack}")]
train_pipeline = [dict(type="LoadImageFromFile"), dict(type="RandomFlip", prob=0.5), dict(type="{pack}")]


def _loader(split, pipeline):
    files = dict(data_root="{images}", ann_file=split + ".txt", data_prefix=split)
    data = dict(type="CustomDataset", pipeline=pipeline, **files)
    return dict(batch_size=8, num_workers=0, dataset=data, sampler=dict(type="DefaultSampler", shuffle=False))


train_dataloader = _loader("train", train_pipeline)
val_dataloader = _loader("test", test_pipeline)
test_dataloader = val_dataloader
val_evaluator = dict(type="Accuracy", topk=(1,))
test_evaluator = val_evaluator
test_cfg = dict()
visualizer = dict(type="{visualizer}", vis_backends=[dict(type="LocalVisBackend")])
default_hooks = dict()
"""
NETWORK = dict(
    type="ImageClassifier",
    backbone=dict(type="ResNet_CIFAR", depth=18, stem_channels=16, base_channels=16, num_stages=4, out_indices=(3,)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(type="LinearClsHead", num_classes=4, in_channels=128, loss=dict(type="CrossEntropyLoss")),
)


def write_config(path, network, images):
    modern = codebase() == "mmpretrain"
    text = MODEL.format(
        scope=codebase(),
        model=network,
        images=images,
        pack="PackInputs" if modern else "PackClsInputs",
        visualizer="UniversalVisualizer" if modern else "ClsVisualizer",
    )
    path.write_text(text)
    return path


def build(network):
    from mmengine.registry import MODELS, DefaultScope

    if codebase() == "mmpretrain":
        from mmpretrain.utils import register_all_modules
    else:
        from mmcls.utils import register_all_modules
    register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope(codebase()):
        return MODELS.build(network).eval()


def label(model, image):
    """What the float model says, of an image (H, W, 3) in RGB."""
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32))
    with torch.no_grad():
        return (
            int(model((x - 127.5) / 64.0).argmax())
            if not hasattr(model, "head")
            else int(model.head.fc(model.extract_feat((x - 127.5) / 64.0)[-1]).argmax())
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """``model_cfg``, ``checkpoint``, ``image`` and ``images`` of a classifier that is always right in float."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    model = build(NETWORK)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    generator = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 24)):
        (folder / "images" / split).mkdir(parents=True)
        lines = []
        for i in range(count):
            coarse = generator.integers(0, 255, (4, 4, 3)).astype(np.uint8)
            picture = Image.fromarray(coarse).resize((32, 32))
            picture.save(folder / "images" / split / f"{i}.png")
            lines.append(f"{i}.png {label(model, np.asarray(picture))}")
        (folder / "images" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    checkpoint = folder / "float.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {}}, checkpoint)
    config = write_config(folder / "model.py", NETWORK, folder / "images")
    return SimpleNamespace(
        folder=folder,
        model=model,
        model_cfg=config,
        checkpoint=checkpoint,
        image=folder / "images" / "test" / "0.png",
        images=folder / "images",
    )


def quantized_world(world, folder, quantizer, *, scales=True):
    """``model``, ``model_cfg`` and ``checkpoint`` of ``MMArchitectureQuant`` around the world's model, calibrated."""
    import razordeploy.registry  # noqa: F401
    from razordeploy.quantization.qat.phases import calibration_phase, validation_phase

    network = {
        "type": "mmrazor.MMArchitectureQuant",
        "data_preprocessor": {
            "type": f"{codebase()}.ClsDataPreprocessor",
            "mean": [127.5] * 3,
            "std": [64.0] * 3,
            "to_rgb": True,
            "num_classes": 4,
        },
        "architecture": {**NETWORK, "_scope_": codebase()},
        "quantizer": {"type": f"mmrazor.{quantizer}"},
        "input_shapes": (1, 3, 32, 32),
    }
    model = build(network)
    model.architecture.load_state_dict(world.model.state_dict(), strict=False)
    calibration_phase(model)
    generator = np.random.default_rng(1)
    coarse = torch.from_numpy(generator.uniform(-2, 2, (32, 3, 4, 4)).astype(np.float32))
    with torch.no_grad():
        model(torch.nn.functional.interpolate(coarse, size=32, mode="bicubic"))
    validation_phase(model)
    state = model.state_dict()
    if not scales:
        state = {key: value for key, value in state.items() if key.startswith("architecture.")}
    checkpoint = folder / "quantized.pth"
    torch.save({"state_dict": state, "meta": {}}, checkpoint)
    config = write_config(folder / "quantized_model.py", network, world.images)
    return SimpleNamespace(model=model, model_cfg=config, checkpoint=checkpoint)


def deploy_config(folder, backend, *, name="deploy.py", **extra):
    """A shipped deploy config, for images of 32 x 32."""
    base = ROOT / "recipes" / "deploy" / codebase() / f"classification_{backend}-int8_224x224.py"
    lines = [f'_base_ = ["{base}"]', "onnx_config = dict(input_shape=[32, 32])"]
    lines += [f"{key} = {value!r}" for key, value in extra.items()]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def run_script(*words, cwd, timeout=900):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(SCRIPTS), *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True, timeout=timeout)
