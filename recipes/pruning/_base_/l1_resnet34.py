"""L1 on ResNet-34, at once; which share of which channels stays is left to say."""

_base_ = ["./imagenet.py"]

model = dict(
    type="ItePruneAlgorithm",
    architecture=dict(cfg_path="mmcls::resnet/resnet34_8xb32_in1k.py"),
    mutator_cfg=dict(
        type="ChannelMutator",
        channel_unit_cfg=dict(type="L1MutableChannelUnit", default_args=dict(choice_mode="ratio")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/resnet34_8xb32_in1k_20210831-f257d4e6.pth"),
)
