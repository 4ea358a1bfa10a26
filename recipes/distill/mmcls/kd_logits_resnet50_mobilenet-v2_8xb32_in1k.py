"""KD: soft labels of ResNet-50 for MobileNetV2 (Hinton et al. 2015). Published by mmrazor: top-1 73.56, alone 71.86."""

_base_ = ["../_base_/imagenet.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::mobilenet_v2/mobilenet-v2_8xb32_in1k.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
    distiller=dict(
        student_recorders=dict(
            fc=_fc,
        ),
        teacher_recorders=dict(fc=_fc),
        distill_losses=dict(loss_kd=dict(type="KLDivergence", tau=1, loss_weight=5)),
        loss_forward_mappings=dict(
            loss_kd=dict(
                preds_S=dict(recorder="fc", from_student=True),
                preds_T=dict(recorder="fc", from_student=False),
            )
        ),
    ),
)
optim_wrapper = dict(optimizer=dict(lr=0.045, weight_decay=4e-5))
param_scheduler = dict(_delete_=True, type="StepLR", by_epoch=True, step_size=1, gamma=0.98)
train_cfg = dict(max_epochs=300)
