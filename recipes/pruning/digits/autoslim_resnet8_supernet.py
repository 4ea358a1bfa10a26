"""AutoSlim on scikit-learn's digits: one supernet of widths from a quarter to the whole."""

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
    type="AutoSlim",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=16),
    mutator=dict(
        type="OneShotChannelMutator",
        channel_unit_cfg=dict(
            type="OneShotMutableChannelUnit",
            default_args=dict(candidate_choices=[0.25, 0.5, 0.75, 1.0], choice_mode="ratio"),
        ),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8)),
    ),
    distiller=_distiller,
)
data = dict(type="digits")
train = dict(epochs=12, batch_size=64, lr=4e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_autoslim_resnet8/supernet.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
