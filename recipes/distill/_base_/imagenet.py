"""ImageNet by mmcls: 100 epochs, student and teacher validated, the student deployed."""

_base_ = [
    "mmcls::_base_/datasets/imagenet_bs32.py",
    "mmcls::_base_/schedules/imagenet_bs256.py",
    "mmcls::_base_/default_runtime.py",
]

val_cfg = dict(type="SingleTeacherDistillValLoop")
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
