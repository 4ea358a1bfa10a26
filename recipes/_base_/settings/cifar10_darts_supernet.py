"""CIFAR-10 in batches of 64, as DARTS searches (arXiv 1806.09055): half of the images for the architecture."""

_base_ = ["mmcls::_base_/datasets/cifar10_bs16.py"]

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    constructor="mmrazor.SeparateOptimWrapperConstructor",
    architecture=dict(
        optimizer=dict(type="SGD", lr=0.025, momentum=0.9, weight_decay=3e-4),
        clip_grad=dict(max_norm=5, norm_type=2),
    ),
    mutator=dict(optimizer=dict(type="Adam", lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)),
)
param_scheduler = dict(
    architecture=[dict(type="CosineAnnealingLR", T_max=50, eta_min=1e-3, begin=0, end=50)], mutator=[]
)
train_cfg = dict(type="mmrazor.DartsEpochBasedTrainLoop", max_epochs=50)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 32, 32), max_drop=1.0)
