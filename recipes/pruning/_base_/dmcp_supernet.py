"""DMCP: widths are learned in a sandwich of subnets, which the full model teaches."""

_base_ = ["./imagenet_bs2048.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")
_in_place = dict(
    student_recorders=dict(fc=_fc),
    teacher_recorders=dict(fc=_fc),
    distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=1, loss_weight=1)),
    loss_forward_mappings=dict(
        loss_kl=dict(preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False))
    ),
)
model = dict(
    type="DMCP",
    distiller=_in_place,
    mutator_cfg=dict(
        type="DMCPChannelMutator",
        channel_unit_cfg=dict(type="DMCPChannelUnit", default_args=dict(choice_mode="number")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
    strategy=["max", "min", "scheduled_random", "arch_random"],
    arch_start_train=5000,
    arch_train_freq=500,
    flop_loss_weight=0.1,
    distillation_times=10000,
)
model_wrapper_cfg = dict(type="mmrazor.DMCPDDP", broadcast_buffers=False, find_unused_parameters=True)
custom_hooks = [dict(type="mmrazor.DMCPSubnetHook")]
