"""The examples of mmrazor's quantization guide, word for word but for the paths of data and checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

DEPLOY = """
deploy_cfg = dict(
    onnx_config=dict(
        type='onnx',
        export_params=True,
        keep_initializers_as_inputs=False,
        opset_version=11,
        save_file='end2end.onnx',
        input_names=['input'],
        output_names=['output'],
        input_shape=None,
        optimize=True,
        dynamic_axes={
            'input': {0: 'batch', 2: 'height', 3: 'width'},
            'output': {0: 'batch'}
        }),
    backend_config=dict(
        type='openvino',
        model_inputs=[dict(opt_shapes=dict(input=[1, 3, 224, 224]))]),
    codebase_config=dict(type='mmcls', task='Classification'),
    function_record_to_pop=[
        'mmcls.models.classifiers.ImageClassifier.forward',
        'mmcls.models.classifiers.BaseClassifier.forward'
    ],
)
"""
MODEL = """
        type='mmcls.ClsDataPreprocessor',
        num_classes=1000,
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        to_rgb=True),
    architecture=%s,
    float_checkpoint=float_checkpoint,
    quantizer=dict(
        type='mmrazor.OpenVINOQuantizer',
        global_qconfig=global_qconfig,
        tracer=dict(
            type='mmrazor.CustomTracer',
            skipped_methods=[
                'mmcls.models.heads.ClsHead._get_loss',
                'mmcls.models.heads.ClsHead._get_predictions'
            ])))
"""
PTQ = (
    """
_base_ = [
    'mmcls::resnet/resnet18_8xb32_in1k.py',
    'deploy_cfgs/classification_openvino_dynamic-224x224.py'
]

_base_.val_dataloader.batch_size = 32

test_cfg = dict(
    type='mmrazor.PTQLoop',
    calibrate_dataloader=_base_.val_dataloader,
    calibrate_steps=32,
)

float_checkpoint = 'resnet18.pth'

global_qconfig = dict(
    w_observer=dict(type='mmrazor.PerChannelMinMaxObserver'),
    a_observer=dict(type='mmrazor.MovingAverageMinMaxObserver'),
    w_fake_quant=dict(type='mmrazor.FakeQuantize'),
    a_fake_quant=dict(type='mmrazor.FakeQuantize'),
    w_qscheme=dict(
        qdtype='qint8', bit=8, is_symmetry=True, is_symmetric_range=True),
    a_qscheme=dict(
        qdtype='quint8', bit=8, is_symmetry=True, averaging_constant=0.1),
)

model = dict(
    _delete_=True,
    type='mmrazor.MMArchitectureQuant',
    deploy_cfg=_base_.deploy_cfg,
    data_preprocessor=dict("""
    + MODEL % "_base_.model"
    + """
model_wrapper_cfg = dict(type='mmrazor.MMArchitectureQuantDDP', )

custom_hooks = []
"""
)
LSQ = (
    """
_base_ = [
    'mmcls::resnet/resnet18_8xb32_in1k.py',
    'deploy_cfgs/classification_openvino_dynamic-224x224.py'
]

resnet = _base_.model
float_checkpoint = 'resnet18.pth'

global_qconfig = dict(
    w_observer=dict(type='mmrazor.LSQPerChannelObserver'),
    a_observer=dict(type='mmrazor.LSQObserver'),
    w_fake_quant=dict(type='mmrazor.LearnableFakeQuantize'),
    a_fake_quant=dict(type='mmrazor.LearnableFakeQuantize'),
    w_qscheme=dict(
        qdtype='qint8', bit=8, is_symmetry=True, is_symmetric_range=True),
    a_qscheme=dict(qdtype='quint8', bit=8, is_symmetry=True),
)

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='MMArchitectureQuant',
    data_preprocessor=dict("""
    + MODEL % "resnet"
    + """
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.0001, momentum=0.9, weight_decay=0.0001))

param_scheduler = dict(
    _delete_=True, type='ConstantLR', factor=1.0, by_epoch=True)

model_wrapper_cfg = dict(
    type='mmrazor.MMArchitectureQuantDDP',
    broadcast_buffers=False,
    find_unused_parameters=True)

train_cfg = dict(
    _delete_=True,
    type='mmrazor.LSQEpochBasedLoop',
    max_epochs=1,
    val_interval=1,
    freeze_bn_begin=1)
val_cfg = dict(_delete_=True, type='mmrazor.QATValLoop')

default_hooks = dict(sync=dict(type='SyncBuffersHook'))
"""
)


def write(folder: Path) -> dict[str, Path]:
    """The configs; name -> file."""
    (folder / "deploy_cfgs").mkdir()
    (folder / "deploy_cfgs" / "classification_openvino_dynamic-224x224.py").write_text(DEPLOY)
    files = {
        "ptq": folder / "ptq_openvino_resnet18_8xb32_in1k_calib32xb32.py",
        "lsq": folder / "lsq_openvino_resnet18_8xb32_10e_in1k.py",
    }
    files["ptq"].write_text(PTQ)
    files["lsq"].write_text(LSQ)
    return files


def write_data(folder: Path, counts: tuple[int, int] = (8, 4)) -> None:
    """A few images where mmcls' ImageNet base looks for them, and random weights."""
    write_images(folder, counts)
    from razordeploy.capture.build import build_model
    from razordeploy.config.recipe import load_recipe

    float_recipe = folder / "float.py"
    float_recipe.write_text("_base_ = ['mmcls::resnet/resnet18_8xb32_in1k.py']\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = build_model(load_recipe(float_recipe)).module
    torch.save({"state_dict": module.state_dict()}, folder / "resnet18.pth")


def write_images(folder: Path, counts: tuple[int, int] = (8, 4)) -> None:
    """Images of two classes alone."""
    rng = np.random.default_rng(0)
    for split, count in zip(("train", "val"), counts, strict=True):
        lines = []
        for index in range(count):
            place = folder / "data" / "imagenet" / split / f"n{index % 2}"
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (230, 240, 3), dtype=np.uint8)).save(place / f"{index}.jpg")
            lines.append(f"n{index % 2}/{index}.jpg {index % 2}\n")
        (folder / "data" / "imagenet" / "meta").mkdir(exist_ok=True)
        (folder / "data" / "imagenet" / "meta" / f"{split}.txt").write_text("".join(lines))
