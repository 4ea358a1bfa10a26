"""RKD: distances and angles within a batch (Park et al. 2019). Published by mmrazor, of unit vectors: top-1 70.23."""

_base_ = ["../_base_/imagenet.py"]

_feat = dict(type="ModuleOutputs", source="neck.gap")
_pair = dict(preds_S=dict(recorder="feat", from_student=True), preds_T=dict(recorder="feat", from_student=False))
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb32_in1k.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet34_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet34_8xb32_in1k_20210831-f257d4e6.pth",
    distiller=dict(
        student_recorders=dict(feat=_feat),
        teacher_recorders=dict(feat=_feat),
        distill_losses=dict(
            loss_dw=dict(type="DistanceWiseRKD", with_l2_norm=True, loss_weight=25),
            loss_aw=dict(type="AngleWiseRKD", with_l2_norm=True, loss_weight=50),
        ),
        loss_forward_mappings=dict(loss_dw=_pair, loss_aw=_pair),
    ),
)
