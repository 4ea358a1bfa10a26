"""FitNets: hints from the last two stages and soft labels (Romero et al. 2015). Published by mmrazor: top-1 70.58."""

_base_ = ["../_base_/imagenet.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")


def _relu(stage, block):
    return dict(type="ModuleOutputs", source=f"backbone.layer{stage}.{block}.relu")


def _regressor(inputs, outputs):
    return dict(type="ConvModuleConnector", in_channel=inputs, out_channel=outputs, norm_cfg=dict(type="BN"))


# A block calls its one ReLU two or three times; the last call is its output.
def _hint(recorder):
    return dict(
        s_feature=dict(recorder=recorder, from_student=True, record_idx=1, connector=f"{recorder}_sfeat"),
        t_feature=dict(recorder=recorder, from_student=False, record_idx=2),
    )


model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb32_in1k.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    teacher_ckpt="checkpoints/resnet50_8xb32_in1k_20210831-ea4938fc.pth",
    distiller=dict(
        student_recorders=dict(bb_s3=_relu(3, 1), bb_s4=_relu(4, 1), fc=_fc),
        teacher_recorders=dict(bb_s3=_relu(3, 5), bb_s4=_relu(4, 2), fc=_fc),
        connectors=dict(bb_s3_sfeat=_regressor(256, 1024), bb_s4_sfeat=_regressor(512, 2048)),
        distill_losses=dict(
            loss_s3=dict(type="L2Loss", loss_weight=10),
            loss_s4=dict(type="L2Loss", loss_weight=10),
            loss_kl=dict(type="KLDivergence", tau=6, loss_weight=10, reduction="mean"),
        ),
        loss_forward_mappings=dict(
            loss_s3=_hint("bb_s3"),
            loss_s4=_hint("bb_s4"),
            loss_kl=dict(
                preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False)
            ),
        ),
    ),
)
