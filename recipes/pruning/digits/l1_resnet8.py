"""L1 on scikit-learn's digits: half of every unit goes at the first step, the rest is trained on.

`razordeploy train ptq/digits_resnet8.py` makes the weights that it starts from.
"""

model = dict(
    type="ItePruneAlgorithm",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=16),
    mutator_cfg=dict(
        type="ChannelMutator",
        channel_unit_cfg=dict(type="L1MutableChannelUnit", default_args=dict(choice_mode="ratio")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8)),
    ),
    target_pruning_ratio=0.5,
    init_cfg=dict(type="Pretrained", checkpoint="work_dirs/digits_resnet8/float.pth"),
)
data = dict(type="digits")
train = dict(epochs=6, batch_size=64, lr=2e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_l1_resnet8/pruned.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
