"""Group Fisher on scikit-learn's digits: one channel every two steps until half of the multiply-adds are left.

`razordeploy train ptq/digits_resnet8.py` makes the weights that it starts from.
"""

model = dict(
    type="GroupFisherAlgorithm",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=16),
    mutator=dict(
        type="GroupFisherChannelMutator",
        channel_unit_cfg=dict(
            type="GroupFisherChannelUnit", default_args=dict(normalization_type="act", mutate_linear=True)
        ),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8)),
    ),
    interval=2,
    target_flop_ratio=0.5,
    init_cfg=dict(type="Pretrained", checkpoint="work_dirs/digits_resnet8/float.pth"),
)
data = dict(type="digits")
train = dict(epochs=10, batch_size=64, lr=2e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_group_fisher_act_resnet8/pruned.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
