"""MEAL V2: the mean of two teachers, and a discriminator, without hard labels (Shen and Savvides 2020)."""

_base_ = ["../_base_/imagenet.py"]

_pair = dict(
    preds_S=dict(recorder="fc", from_student=True),
    preds_T=[dict(recorder="res34", from_student=False), dict(recorder="res50", from_student=False)],
)
model = dict(
    type="MultiTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb32_in1k.py"),
    teachers=dict(
        res34=dict(
            build_cfg=dict(cfg_path="mmcls::resnet/resnet34_8xb32_in1k.py"),
            ckpt_path="checkpoints/resnet34_8xb32_in1k_20210831-f257d4e6.pth",
        ),
        res50=dict(
            build_cfg=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
            ckpt_path="checkpoints/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
        ),
    ),
    calculate_student_loss=False,
    distiller=dict(
        student_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
        teacher_recorders=dict(
            res34=dict(type="ModuleOutputs", source="res34.head.fc"),
            res50=dict(type="ModuleOutputs", source="res50.head.fc"),
        ),
        distill_losses=dict(
            loss_soft=dict(type="MultiTeacherSoftCELoss"),
            loss_adv=dict(type="DiscriminatorLoss", channels=1000, divisor=8),
        ),
        loss_forward_mappings=dict(loss_soft=_pair, loss_adv=_pair),
    ),
)
# Official: from the published student, 180 epochs at 0.01, without weight decay.
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=0.0))
param_scheduler = dict(milestones=[100])
train_cfg = dict(max_epochs=180)
val_cfg = dict(_delete_=True, type="SelfDistillValLoop")
