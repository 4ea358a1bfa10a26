"""OFD: features before the ReLU, the teacher's through a margin ReLU (Heo et al. 2019).

Recorded is what the last ReLU of a stage is given; the margin comes from the batch norm in front of that sum.
"""

_base_ = ["../_base_/cifar10.py"]

# Stage -> channels of student and teacher, the teacher's last block, official weight.
_stages = {1: (64, 256, 2, 0.125), 2: (128, 512, 3, 0.25), 3: (256, 1024, 5, 0.5), 4: (512, 2048, 2, 1.0)}
model = dict(
    type="OverhaulFeatureDistillation",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb16_cifar10.py"),
    teacher_ckpt="checkpoints/resnet50_b16x8_cifar10_20210528-f54bfad9.pth",
    distiller=dict(
        type="OFDDistiller",
        student_recorders={
            f"bb_s{i}": dict(type="ModuleInputs", source=f"backbone.layer{i}.1.relu") for i in (1, 2, 3, 4)
        },
        teacher_recorders={
            f"bb_s{i}": dict(type="ModuleInputs", source=f"backbone.layer{i}.{last}.relu")
            for i, (_, _, last, _) in _stages.items()
        },
        connectors={
            **{
                f"loss_s{i}_sfeat": dict(
                    type="ConvModuleConnector", in_channel=s, out_channel=t, norm_cfg=dict(type="BN"), act_cfg=None
                )
                for i, (s, t, _, _) in _stages.items()
            },
            **{
                f"loss_s{i}_tfeat": dict(type="OFDTeacherConnector", norm=f"backbone.layer{i}.{last}.bn3")
                for i, (_, _, last, _) in _stages.items()
            },
        },
        distill_losses={f"loss_s{i}": dict(type="OFDLoss", loss_weight=w) for i, (_, _, _, w) in _stages.items()},
        loss_forward_mappings={
            f"loss_s{i}": dict(
                s_feature=dict(
                    recorder=f"bb_s{i}", from_student=True, record_idx=1, data_idx=0, connector=f"loss_s{i}_sfeat"
                ),
                t_feature=dict(
                    recorder=f"bb_s{i}", from_student=False, record_idx=2, data_idx=0, connector=f"loss_s{i}_tfeat"
                ),
            )
            for i in (1, 2, 3, 4)
        },
    ),
)
