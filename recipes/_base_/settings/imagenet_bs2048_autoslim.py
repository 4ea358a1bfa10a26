"""ImageNet, 8 x 256 images a step, as AutoSlim trains (arXiv 1903.11728)."""

_base_ = ["mmcls::_base_/datasets/imagenet_bs64.py"]

train_dataloader = dict(batch_size=256)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(
    type="PolyLR", power=1.0, eta_min=0.0, by_epoch=True, begin=0, end=50, convert_to_iter_based=True
)
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=1)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
