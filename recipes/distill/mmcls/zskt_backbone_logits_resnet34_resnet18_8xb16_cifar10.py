"""ZSKT: one generator step, then ten of the student, with attention transfer (Micaelli and Storkey 2019).

Published by mmrazor: top-1 93.05.
"""

_base_ = ["../_base_/data_free_cifar10.py"]

_last = {1: 2, 2: 3, 3: 5, 4: 2}
_fc = dict(type="ModuleOutputs", source="head.fc")
_teacher_fc = dict(type="ModuleOutputs", source="res34.head.fc")
_pair = dict(preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="res34_fc", from_student=False))
model = dict(
    type="DataFreeDistillation",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teachers=_base_.teachers,
    generator=dict(type="ZSKTGenerator", img_size=32, latent_dim=100, hidden_channels=128),
    distiller=dict(
        student_recorders=dict(
            fc=_fc, **{f"bb_s{i}": dict(type="ModuleOutputs", source=f"backbone.layer{i}.1.relu") for i in _last}
        ),
        teacher_recorders=dict(
            res34_fc=_teacher_fc,
            **{
                f"bb_s{i}": dict(type="ModuleOutputs", source=f"res34.backbone.layer{i}.{last}.relu")
                for i, last in _last.items()
            },
        ),
        distill_losses=dict(
            loss_kl=dict(type="KLDivergence", reduction="mean"),
            **{f"loss_s{i}": dict(type="ATLoss", loss_weight=250.0) for i in _last},
        ),
        loss_forward_mappings=dict(
            loss_kl=_pair,
            **{
                f"loss_s{i}": dict(
                    s_feature=dict(recorder=f"bb_s{i}", from_student=True, record_idx=1),
                    t_feature=dict(recorder=f"bb_s{i}", from_student=False, record_idx=1),
                )
                for i in _last
            },
        ),
    ),
    generator_distiller=dict(
        student_recorders=dict(fc=_fc),
        teacher_recorders=dict(res34_fc=_teacher_fc),
        distill_losses=dict(
            loss_kl=dict(type="KLDivergence", reduction="mean", loss_weight=-1.0, teacher_detach=False)
        ),
        loss_forward_mappings=dict(loss_kl=_pair),
    ),
    student_iter=10,
)
_clip = dict(max_norm=5)
_cosine = dict(type="CosineAnnealingLR", T_max=80000, by_epoch=False)
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    constructor="SeparateOptimWrapperConstructor",
    architecture=dict(optimizer=dict(type="Adam", lr=2e-3), clip_grad=_clip),
    generator=dict(optimizer=dict(type="Adam", lr=1e-3), clip_grad=_clip),
)
param_scheduler = dict(architecture=_cosine, generator=_cosine)
train_cfg = dict(by_epoch=False, max_iters=80000, val_interval=1000)
