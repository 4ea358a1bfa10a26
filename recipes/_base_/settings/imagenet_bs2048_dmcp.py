"""ImageNet, 32 x 64 images a step, as DMCP trains (arXiv 2005.03354)."""

_base_ = ["mmcls::_base_/datasets/imagenet_bs32.py"]

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    constructor="mmrazor.SeparateOptimWrapperConstructor",
    architecture=dict(optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=1e-4, nesterov=True)),
    mutator=dict(optimizer=dict(type="Adam", lr=0.5, weight_decay=1e-4)),
)
param_scheduler = dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=62500)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
