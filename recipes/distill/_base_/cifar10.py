"""CIFAR-10 by mmcls: 200 epochs, student and teacher validated, the student deployed."""

_base_ = [
    "mmcls::_base_/datasets/cifar10_bs16.py",
    "mmcls::_base_/schedules/cifar10_bs128.py",
    "mmcls::_base_/default_runtime.py",
]

val_cfg = dict(type="SingleTeacherDistillValLoop")
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 32, 32), max_drop=1.0)
