"""CIFAR-10 in batches of 96, as DARTS trains the cells it found (arXiv 1806.09055)."""

_base_ = ["mmcls::_base_/datasets/cifar10_bs16.py"]

train_dataloader = dict(batch_size=96)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.025, momentum=0.9, weight_decay=3e-4), clip_grad=dict(max_norm=5, norm_type=2)
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=600, by_epoch=True, begin=0, end=600)]
train_cfg = dict(by_epoch=True, max_epochs=600, val_interval=1)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 32, 32), max_drop=1.0)
