"""MGD for classification: the student generates the last feature map from some channels (Yang et al. 2022)."""

_base_ = ["../_base_/imagenet.py"]

model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb32_in1k.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet34_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet34_8xb32_in1k_20210831-f257d4e6.pth",
    distiller=dict(
        student_recorders=dict(bb_s4=dict(type="ModuleOutputs", source="backbone.layer4.1.relu")),
        teacher_recorders=dict(bb_s4=dict(type="ModuleOutputs", source="backbone.layer4.2.relu")),
        connectors=dict(
            generate=dict(
                type="MGDConnector", student_channels=512, teacher_channels=512, lambda_mgd=0.15, mask_on_channel=True
            )
        ),
        distill_losses=dict(loss_mgd=dict(type="MGDLoss", alpha_mgd=7e-5)),
        loss_forward_mappings=dict(
            loss_mgd=dict(
                preds_S=dict(recorder="bb_s4", from_student=True, record_idx=1, connector="generate"),
                preds_T=dict(recorder="bb_s4", from_student=False, record_idx=1),
            )
        ),
    ),
)
