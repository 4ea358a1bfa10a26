"""WSLD: soft labels weighted by who knows a sample better (Zhou et al. 2021). Published by mmrazor: top-1 71.54."""

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
            gt_labels=dict(type="ModuleInputs", source="head.loss_module"),
        ),
        teacher_recorders=dict(fc=_fc),
        distill_losses=dict(loss_kd=dict(type="WSLD", tau=2, loss_weight=2.5)),
        loss_forward_mappings=dict(
            loss_kd=dict(
                student=dict(recorder="fc", from_student=True),
                teacher=dict(recorder="fc", from_student=False),
                gt_labels=dict(recorder="gt_labels", from_student=True, data_idx=1),
            )
        ),
    ),
)
