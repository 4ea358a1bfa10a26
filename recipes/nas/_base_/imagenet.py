"""ImageNet by mmcls, 128 images a step and GPU on eight GPUs; the deployed subnet is calibrated on training images."""

_base_ = ["mmcls::_base_/datasets/imagenet_bs64.py", "mmcls::_base_/default_runtime.py"]

train_dataloader = dict(batch_size=128)
val_dataloader = dict(batch_size=128)
train_cfg = dict(by_epoch=True, val_interval=1)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
