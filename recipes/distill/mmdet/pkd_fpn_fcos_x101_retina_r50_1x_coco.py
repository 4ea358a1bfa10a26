"""PKD across detectors: FCOS teaches RetinaNet (Cao et al. 2022). Published by mmrazor: 40.3 AP, alone 36.5.

The strides of both pyramids are 8 to 128.
"""

_base_ = ["../_base_/coco_1x.py"]

_levels = range(0, 5)
_neck = dict(type="ModuleOutputs", source="neck")


def _level(index, from_student, **connector):
    return dict(recorder="fpn", from_student=from_student, data_idx=index, **connector)


model = dict(
    type="FpnTeacherDistill",
    architecture=dict(cfg_path="mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"),
    teacher=dict(cfg_path="mmdet::fcos/fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco.py"),
    teacher_ckpt="checkpoints/fcos_x101_64x4d_fpn_gn-head_mstrain_640-800_2x_coco-ede514a8.pth",
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
