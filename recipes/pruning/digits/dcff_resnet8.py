"""DCFF on scikit-learn's digits: from scratch, half of the filters, each fused from all."""

model = dict(
    type="DCFF",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=16),
    mutator_cfg=dict(
        type="DCFFChannelMutator",
        channel_unit_cfg=dict(type="DCFFChannelUnit", default_args=dict(choice_mode="ratio")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8)),
    ),
    target_pruning_ratio=0.5,
)
data = dict(type="digits")
train = dict(epochs=12, batch_size=64, lr=4e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_dcff_resnet8/pruned.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
