"""MEAL: one of two teachers per step, and a discriminator (Shen et al. 2019)."""

_base_ = ["../_base_/cifar10.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")
_pair = dict(preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False))
model = dict(
    type="MultiTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teachers=dict(
        res34=dict(
            build_cfg=dict(cfg_path="mmcls::resnet/resnet34_8xb16_cifar10.py"),
            ckpt_path="checkpoints/resnet34_b16x8_cifar10_20210528-a8aa36a6.pth",
        ),
        res50=dict(
            build_cfg=dict(cfg_path="mmcls::resnet/resnet50_8xb16_cifar10.py"),
            ckpt_path="checkpoints/resnet50_b16x8_cifar10_20210528-f54bfad9.pth",
        ),
    ),
    selection="random",
    calculate_student_loss=False,
    distiller=dict(
        student_recorders=dict(fc=_fc),
        teacher_recorders=dict(fc=_fc),
        distill_losses=dict(
            loss_similarity=dict(type="MEALLoss", similarity="ce"),
            loss_adv=dict(type="DiscriminatorLoss", channels=10, divisor=2, grad_reverse=True),
        ),
        loss_forward_mappings=dict(loss_similarity=_pair, loss_adv=_pair),
    ),
)
val_cfg = dict(_delete_=True, type="SelfDistillValLoop")
