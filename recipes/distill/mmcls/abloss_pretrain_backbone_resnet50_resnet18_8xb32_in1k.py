"""AB, first stage: the student learns on which side of zero its teacher's neurons are (Heo et al. 2019).

Features are those before the last ReLU of each stage: the second (third) input of that module in a basic (bottleneck)
block. `abloss_logits_resnet50_resnet18_8xb32_in1k.py` goes on from here.
"""

_base_ = ["../_base_/imagenet.py"]

# Stage -> channels of student and teacher, the teacher's last block, official weight.
_stages = {1: (64, 256, 2, 0.125), 2: (128, 512, 3, 0.25), 3: (256, 1024, 5, 0.5), 4: (512, 2048, 2, 1.0)}
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb32_in1k.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
    calculate_student_loss=False,
    distiller=dict(
        student_recorders={
            f"bb_s{i}": dict(type="ModuleInputs", source=f"backbone.layer{i}.1.relu") for i in (1, 2, 3, 4)
        },
        teacher_recorders={
            f"bb_s{i}": dict(type="ModuleInputs", source=f"backbone.layer{i}.{last}.relu")
            for i, (_, _, last, _) in _stages.items()
        },
        connectors={
            f"loss_s{i}_sfeat": dict(
                type="ConvModuleConnector", in_channel=s, out_channel=t, norm_cfg=dict(type="BN"), act_cfg=None
            )
            for i, (s, t, _, _) in _stages.items()
        },
        distill_losses={f"loss_s{i}": dict(type="ABLoss", loss_weight=w) for i, (_, _, _, w) in _stages.items()},
        loss_forward_mappings={
            f"loss_s{i}": dict(
                s_feature=dict(
                    recorder=f"bb_s{i}", from_student=True, record_idx=1, data_idx=0, connector=f"loss_s{i}_sfeat"
                ),
                t_feature=dict(recorder=f"bb_s{i}", from_student=False, record_idx=2, data_idx=0),
            )
            for i in (1, 2, 3, 4)
        },
    ),
)
train_cfg = dict(max_epochs=20)
# The student's classifier is not trained in this stage.
find_unused_parameters = True
