"""A slimmable network for scikit-learn's digits: three widths, each with batch norms of its own."""

model = dict(
    type="SlimmableNetwork",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=16),
    mutator=dict(
        type="SlimmableChannelMutator",
        channel_unit_cfg=dict(
            type="SlimmableChannelUnit",
            default_args=dict(candidate_choices=[0.25, 0.5, 1.0], choice_mode="ratio"),
        ),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8)),
    ),
)
data = dict(type="digits")
train = dict(epochs=12, batch_size=64, lr=4e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_slimmable_resnet8/supernet.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
