"""PKD: correlation of the levels of the pyramid (Cao et al. 2022). Published by mmrazor: 42.3 AP, alone 38.6."""

_base_ = ["../_base_/coco_2x.py"]

_levels = range(0, 5)
_neck = dict(type="ModuleOutputs", source="neck")


def _level(index, from_student, **connector):
    return dict(recorder="fpn", from_student=from_student, data_idx=index, **connector)


model = dict(
    type="FpnTeacherDistill",
    architecture=dict(cfg_path="mmdet::reppoints/reppoints-moment_r50_fpn-gn_head-gn_2x_coco.py"),
    teacher=dict(cfg_path="mmdet::reppoints/reppoints-moment_x101-dconv-c3-c5_fpn-gn_head-gn_2x_coco.py"),
    teacher_ckpt="checkpoints/reppoints_moment_x101_fpn_dconv_c3-c5_gn-neck+head_2x_coco_20200329-f87da1ea.pth",
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
