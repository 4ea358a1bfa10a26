"""PKD across detectors: Mask R-CNN on Swin teaches RetinaNet (Cao et al. 2022). Published by mmrazor: 41.5 AP,
alone 37.4.

The teacher's pyramid begins at stride 4, the student's at 8: what differs in size is resized.
"""

_base_ = ["../_base_/coco_2x.py"]

_levels = range(0, 4)
_neck = dict(type="ModuleOutputs", source="neck")


def _level(index, from_student, **connector):
    return dict(recorder="fpn", from_student=from_student, data_idx=index, **connector)


model = dict(
    type="FpnTeacherDistill",
    architecture=dict(cfg_path="mmdet::retinanet/retinanet_r50_fpn_2x_coco.py"),
    teacher=dict(cfg_path="mmdet::swin/mask-rcnn_swin-s-p4-w7_fpn_amp-ms-crop-3x_coco.py"),
    teacher_ckpt="checkpoints/mask_rcnn_swin-s-p4-w7_fpn_fp16_ms-crop-3x_coco_20210903_104808-b92c91f1.pth",
    distiller=dict(
        student_recorders=dict(fpn=_neck),
        teacher_recorders=dict(fpn=_neck),
        distill_losses={f"loss_fpn{i}": dict(type="PKDLoss", loss_weight=10) for i in _levels},
        loss_forward_mappings={
            f"loss_fpn{i}": dict(
                preds_S=_level(i, True),
                preds_T=_level(i, False),
            )
            for i in _levels
        },
    ),
)
