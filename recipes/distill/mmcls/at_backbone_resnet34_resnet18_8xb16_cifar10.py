"""AT: attention maps of all four stages (Zagoruyko and Komodakis 2017), beta / 2 = 500."""

_base_ = ["../_base_/cifar10.py"]

_last = {1: 2, 2: 3, 3: 5, 4: 2}
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet34_8xb16_cifar10.py"),
    teacher_ckpt="checkpoints/resnet34_b16x8_cifar10_20210528-a8aa36a6.pth",
    distiller=dict(
        student_recorders={f"bb_s{i}": dict(type="ModuleOutputs", source=f"backbone.layer{i}.1.relu") for i in _last},
        teacher_recorders={
            f"bb_s{i}": dict(type="ModuleOutputs", source=f"backbone.layer{i}.{last}.relu") for i, last in _last.items()
        },
        distill_losses={f"loss_s{i}": dict(type="ATLoss", loss_weight=500) for i in _last},
        loss_forward_mappings={
            f"loss_s{i}": dict(
                s_feature=dict(recorder=f"bb_s{i}", from_student=True, record_idx=1),
                t_feature=dict(recorder=f"bb_s{i}", from_student=False, record_idx=1),
            )
            for i in _last
        },
    ),
)
