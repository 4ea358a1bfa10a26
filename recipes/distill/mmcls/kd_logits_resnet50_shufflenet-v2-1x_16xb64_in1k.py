"""KD: soft labels of ResNet-50 for ShuffleNetV2 (Hinton et al. 2015).

Published by mmrazor: top-1 70.87, alone 69.55.
"""

_base_ = ["../_base_/imagenet.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
    distiller=dict(
        student_recorders=dict(
            fc=_fc,
        ),
        teacher_recorders=dict(fc=_fc),
        distill_losses=dict(loss_kd=dict(type="KLDivergence", tau=1, loss_weight=3)),
        loss_forward_mappings=dict(
            loss_kd=dict(
                preds_S=dict(recorder="fc", from_student=True),
                preds_T=dict(recorder="fc", from_student=False),
            )
        ),
    ),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=0.5, weight_decay=4e-5))
param_scheduler = dict(_delete_=True, type="PolyLR", by_epoch=False, convert_to_iter_based=False, end=375000, eta_min=0)
train_cfg = dict(max_epochs=300)
auto_scale_lr = dict(base_batch_size=1024)
