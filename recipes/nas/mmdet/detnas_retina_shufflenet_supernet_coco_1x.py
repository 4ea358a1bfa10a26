"""DetNAS on a single-stage detector: SPOS's space as the backbone of RetinaNet (arXiv 1903.10979).

`razordeploy train` trains the supernet; the backbone is that of `../mmcls/detnas_shufflenet_supernet_8xb128_in1k.py`,
whose weights `model.architecture.backbone.init_cfg` may name.
"""

_base_ = [
    "mmdet::_base_/models/retinanet_r50_fpn.py",
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
    "../_base_/spos_shufflenet.py",
]

_norm = dict(type="SyncBN", requires_grad=True)
_detector = dict(**_base_.model)
_detector["type"] = "mmdet.RetinaNet"
_detector["backbone"] = dict(**_base_.nas_backbone, norm_cfg=_norm, out_indices=(0, 1, 2, 3), with_last_layer=False)
_detector["neck"] = {**_base_.model.neck, "norm_cfg": _norm, "in_channels": [64, 160, 320, 640]}
model = dict(_delete_=True, type="mmrazor.SPOS", architecture=_detector, mutator=dict(type="mmrazor.NasMutator"))
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 800, 1344), max_drop=1.0)
