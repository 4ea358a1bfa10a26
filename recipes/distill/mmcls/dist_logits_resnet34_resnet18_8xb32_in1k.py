"""DIST: relations between and within classes (Huang et al. 2022). Published by mmrazor: top-1 71.61, alone 69.90."""

_base_ = ["../_base_/imagenet.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb32_in1k.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet34_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet34_8xb32_in1k_20210831-f257d4e6.pth",
    distiller=dict(
        student_recorders=dict(
            fc=_fc,
        ),
        teacher_recorders=dict(fc=_fc),
        distill_losses=dict(loss_kd=dict(type="DISTLoss", tau=1, loss_weight=2)),
        loss_forward_mappings=dict(
            loss_kd=dict(
                logits_S=dict(recorder="fc", from_student=True),
                logits_T=dict(recorder="fc", from_student=False),
            )
        ),
    ),
)
