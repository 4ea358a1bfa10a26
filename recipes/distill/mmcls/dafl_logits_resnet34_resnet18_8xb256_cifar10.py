"""DAFL: a generator that satisfies the teacher; soft labels on its images (Chen et al. 2019). mmrazor: top-1 93.27.

Optimizers and losses are those of the authors' code.
"""

_base_ = ["../_base_/data_free_cifar10.py"]

_teacher_fc = dict(type="ModuleOutputs", source="res34.head.fc")
_of_teacher = dict(recorder="res34_fc", from_student=False)
model = dict(
    type="DAFLDataFreeDistillation",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teachers=_base_.teachers,
    generator=dict(type="DAFLGenerator", img_size=32, latent_dim=1000, hidden_channels=128),
    distiller=dict(
        student_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
        teacher_recorders=dict(res34_fc=_teacher_fc),
        distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=1)),
        loss_forward_mappings=dict(loss_kl=dict(preds_S=dict(recorder="fc", from_student=True), preds_T=_of_teacher)),
    ),
    generator_distiller=dict(
        teacher_recorders=dict(
            res34_fc=_teacher_fc, res34_neck_gap=dict(type="ModuleOutputs", source="res34.neck.gap")
        ),
        distill_losses=dict(
            loss_res34_oh=dict(type="OnehotLikeLoss", loss_weight=0.05),
            loss_res34_ie=dict(type="InformationEntropyLoss", loss_weight=5),
            loss_res34_ac=dict(type="ActivationLoss", loss_weight=0.01),
        ),
        loss_forward_mappings=dict(
            loss_res34_oh=dict(preds_T=_of_teacher),
            loss_res34_ie=dict(preds_T=_of_teacher),
            loss_res34_ac=dict(feat_T=dict(recorder="res34_neck_gap", from_student=False)),
        ),
    ),
)
optim_wrapper = dict(
    constructor="SeparateOptimWrapperConstructor",
    architecture=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4)),
    generator=dict(optimizer=dict(type="Adam", lr=0.2)),
)
param_scheduler = dict(
    architecture=dict(type="MultiStepLR", milestones=[100 * 120, 200 * 120], by_epoch=False),
    generator=dict(type="ConstantLR", factor=1.0, by_epoch=False),
)
train_cfg = dict(by_epoch=False, max_iters=250 * 120, val_interval=500)
