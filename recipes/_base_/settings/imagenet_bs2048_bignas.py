"""ImageNet, 32 x 64 images a step, as BigNAS trains (arXiv 2003.11142)."""

_base_ = ["mmcls::_base_/datasets/imagenet_bs64.py"]

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.8, momentum=0.9, weight_decay=1e-5, nesterov=True),
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0),
    clip_grad=dict(type="value", clip_value=0.2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=3125),
    dict(type="CosineAnnealingLR", T_max=360, eta_min=0, by_epoch=True, begin=0, end=360, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=360, val_interval=1)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
