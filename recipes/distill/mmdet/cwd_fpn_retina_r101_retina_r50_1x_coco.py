"""CWD on the five levels of the pyramid (Shu et al. 2021)."""

_base_ = ["../_base_/coco_1x.py"]

_levels = range(0, 5)
_neck = dict(type="ModuleOutputs", source="neck")


def _level(index, from_student, **connector):
    return dict(recorder="fpn", from_student=from_student, data_idx=index, **connector)


model = dict(
    type="FpnTeacherDistill",
    architecture=dict(cfg_path="mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"),
    teacher=dict(cfg_path="mmdet::retinanet/retinanet_r101_fpn_2x_coco.py"),
    teacher_ckpt="checkpoints/retinanet_r101_fpn_2x_coco_20200131-5560aee8.pth",
    distiller=dict(
        student_recorders=dict(fpn=_neck),
        teacher_recorders=dict(fpn=_neck),
        distill_losses={f"loss_fpn{i}": dict(type="ChannelWiseDivergence", tau=1, loss_weight=10) for i in _levels},
        loss_forward_mappings={
            f"loss_fpn{i}": dict(
                preds_S=_level(i, True),
                preds_T=_level(i, False),
            )
            for i in _levels
        },
    ),
)
