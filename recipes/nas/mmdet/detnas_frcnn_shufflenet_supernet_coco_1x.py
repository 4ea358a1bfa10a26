"""DetNAS: SPOS's space as the backbone of Faster R-CNN (arXiv 1903.10979). Published by mmrazor: 37.5 mAP."""

_base_ = [
    "mmdet::_base_/models/faster-rcnn_r50_fpn.py",
    "mmdet::_base_/datasets/coco_detection.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
    "../_base_/spos_shufflenet.py",
]

_norm = dict(type="SyncBN", requires_grad=True)
_detector = dict(**_base_.model)
_detector["type"] = "mmdet.FasterRCNN"
_detector["backbone"] = dict(**_base_.nas_backbone, norm_cfg=_norm, out_indices=(0, 1, 2, 3), with_last_layer=False)
_detector["neck"] = {**_base_.model.neck, "norm_cfg": _norm, "in_channels": [64, 160, 320, 640]}
_detector["roi_head"] = {
    **_base_.model.roi_head,
    "bbox_head": {**_base_.model.roi_head.bbox_head, "type": "Shared4Conv1FCBBoxHead", "norm_cfg": _norm},
}
model = dict(_delete_=True, type="mmrazor.SPOS", architecture=_detector, mutator=dict(type="mmrazor.NasMutator"))
