"""Factor transfer: the teacher's paraphraser is trained first, in the same run (Kim et al. 2018)."""

_base_ = ["../_base_/cifar10.py"]

model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb16_cifar10.py"),
    teacher_ckpt="checkpoints/resnet50_b16x8_cifar10_20210528-f54bfad9.pth",
    distiller=dict(
        # The output of the last block: its one ReLU is called twice in a basic block, three times in a bottleneck.
        student_recorders=dict(bb_s4=dict(type="ModuleOutputs", source="backbone.layer4.1.relu")),
        teacher_recorders=dict(bb_s4=dict(type="ModuleOutputs", source="backbone.layer4.2.relu")),
        connectors=dict(
            loss_s4_sfeat=dict(type="Translator", in_channel=512, out_channel=1024),
            loss_s4_tfeat=dict(
                type="Paraphraser", in_channel=2048, out_channel=1024, pretrain_criterion=dict(type="L1Loss")
            ),
        ),
        distill_losses=dict(loss_s4=dict(type="FTLoss", loss_weight=500)),
        loss_forward_mappings=dict(
            loss_s4=dict(
                s_feature=dict(recorder="bb_s4", from_student=True, record_idx=1, connector="loss_s4_sfeat"),
                t_feature=dict(recorder="bb_s4", from_student=False, record_idx=2, connector="loss_s4_tfeat"),
            )
        ),
    ),
)
custom_hooks = [dict(type="ConnectorPretrainHook", epochs=20)]
