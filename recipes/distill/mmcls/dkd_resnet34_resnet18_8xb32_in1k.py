"""DKD: target and other classes apart (Zhao et al. 2022). Published by mmrazor: top-1 71.368, alone 69.90."""

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
        distill_losses=dict(loss_kd=dict(type="DKDLoss", tau=1, alpha=1, beta=0.5)),
        loss_forward_mappings=dict(
            loss_kd=dict(
                preds_S=dict(recorder="fc", from_student=True),
                preds_T=dict(recorder="fc", from_student=False),
                gt_labels=dict(recorder="gt_labels", from_student=True, data_idx=1),
            )
        ),
    ),
)
