"""DMCP on scikit-learn's digits: widths are learned, 0.35 of 0.76 million multiply-adds are aimed at."""

_fc = dict(type="ModuleOutputs", source="linear")
_distiller = dict(
    student_recorders=dict(fc=_fc),
    teacher_recorders=dict(fc=_fc),
    distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=1)),
    loss_forward_mappings=dict(
        loss_kl=dict(preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False))
    ),
)
model = dict(
    type="DMCP",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=16),
    mutator_cfg=dict(
        type="DMCPChannelMutator",
        channel_unit_cfg=dict(type="DMCPChannelUnit"),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8)),
        pruning_cfg=(0.125, 1.0, 0.125),
    ),
    distiller=_distiller,
    arch_start_train=60,
    arch_train_freq=1,
    distillation_times=60,
    flop_loss_weight=0.5,
    target_flops=0.35,
)
data = dict(type="digits")
optim_wrapper = dict(
    constructor="SeparateOptimWrapperConstructor",
    architecture=dict(optimizer=dict(type="AdamW", lr=4e-3, weight_decay=0.01)),
    mutator=dict(optimizer=dict(type="Adam", lr=2e-2)),
)
train = dict(epochs=16, batch_size=64, shift=1, threads=1)
checkpoint = "work_dirs/digits_dmcp_resnet8/pruned.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
