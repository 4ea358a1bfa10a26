"""ImageNet, 8 x 128 images a step, as DSNAS trains (arXiv 2002.09128)."""

_base_ = ["mmcls::_base_/datasets/imagenet_bs64.py"]

train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    constructor="mmrazor.SeparateOptimWrapperConstructor",
    architecture=dict(
        optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=4e-5),
        paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0),
    ),
    mutator=dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=0.0, betas=(0.5, 0.999))),
)
param_scheduler = dict(
    architecture=[
        dict(type="LinearLR", end=5, by_epoch=True, start_factor=1e-4),
        dict(type="CosineAnnealingLR", T_max=240, begin=5, eta_min=0.0, by_epoch=True),
    ],
    mutator=[],
)
train_cfg = dict(by_epoch=True, max_epochs=240, val_interval=1)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
