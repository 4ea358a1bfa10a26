"""DFAD: five student steps of an L1 loss, one generator step of its negative (Fang et al. 2019).

Published by mmrazor: top-1 92.80.
"""

_base_ = ["../_base_/data_free_cifar10.py"]

_recorders = dict(
    student_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
    teacher_recorders=dict(res34_fc=dict(type="ModuleOutputs", source="res34.head.fc")),
)
_pair = dict(s_feature=dict(recorder="fc", from_student=True), t_feature=dict(recorder="res34_fc", from_student=False))
model = dict(
    type="DataFreeDistillation",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teachers=_base_.teachers,
    generator=dict(type="DAFLGenerator", img_size=32, latent_dim=256, hidden_channels=128, bn_eps=1e-5),
    distiller=dict(
        **_recorders,
        distill_losses=dict(loss_l1=dict(type="L1Loss")),
        loss_forward_mappings=dict(loss_l1=_pair),
    ),
    generator_distiller=dict(
        **_recorders,
        distill_losses=dict(loss_l1=dict(type="L1Loss", loss_weight=-1.0)),
        loss_forward_mappings=dict(loss_l1=_pair),
    ),
    student_iter=5,
    student_train_first=True,
)
_steps = dict(type="MultiStepLR", milestones=[100 * 50, 200 * 50], by_epoch=False)
optim_wrapper = dict(
    constructor="SeparateOptimWrapperConstructor",
    architecture=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4)),
    generator=dict(optimizer=dict(type="Adam", lr=1e-3)),
)
param_scheduler = dict(architecture=_steps, generator=_steps)
train_cfg = dict(by_epoch=False, max_iters=500 * 50, val_interval=500)
