"""One ratio for every unit of a network for scikit-learn's digits, in four channels each.

`razordeploy train ptq/digits_resnet8.py` makes the weights that it starts from.
"""

model = dict(
    type="RatioPruner",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=16),
    ratio=0.5,
    divisor=4,
    except_start_keys=["conv1"],
    mutator=dict(parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 1, 8, 8))),
    init_cfg=dict(type="Pretrained", checkpoint="work_dirs/digits_resnet8/float.pth"),
)
data = dict(type="digits")
train = dict(epochs=6, batch_size=64, lr=2e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_ratio_resnet8/pruned.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
