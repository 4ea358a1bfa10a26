"""COCO by mmdet: 12 epochs, student and teacher validated, the student deployed."""

_base_ = [
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]

val_cfg = dict(type="SingleTeacherDistillValLoop", _delete_=True)
# Connectors of levels that a batch does not reach get no gradient.
find_unused_parameters = True
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 800, 1344))
