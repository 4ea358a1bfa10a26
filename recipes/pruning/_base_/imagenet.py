"""ImageNet by mmcls: 100 epochs, batches of 256 over 8 processes."""

_base_ = [
    "mmcls::_base_/datasets/imagenet_bs32.py",
    "mmcls::_base_/schedules/imagenet_bs256.py",
    "mmcls::_base_/default_runtime.py",
]

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
