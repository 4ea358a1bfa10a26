"""AB, second stage: KD of a student that starts from its teacher's activation boundaries (Heo et al. 2019).

The student comes from `abloss_pretrain_backbone_resnet50_resnet18_8xb32_in1k.py`.
"""

_base_ = ["../_base_/imagenet.py"]

_pretrained = "work_dirs/abloss_pretrain_backbone_resnet50_resnet18_8xb32_in1k/student.pth"
_fc = dict(type="ModuleOutputs", source="head.fc")
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(
        cfg_path="mmcls::resnet/resnet18_8xb32_in1k.py",
        init_cfg=dict(type="Pretrained", checkpoint=_pretrained),
    ),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
    distiller=dict(
        student_recorders=dict(
            fc=_fc,
        ),
        teacher_recorders=dict(fc=_fc),
        distill_losses=dict(loss_kd=dict(type="KLDivergence", tau=3)),
        loss_forward_mappings=dict(
            loss_kd=dict(
                preds_S=dict(recorder="fc", from_student=True),
                preds_T=dict(recorder="fc", from_student=False),
            )
        ),
    ),
)
