"""L1 on ResNet-34, the paper's C: four fifths of the shortcut of one stage.

Published by mmrazor: top-1 73.89 with 3.40 G multiply-adds, 73.62 with 3.68 G unpruned.
"""

_base_ = ["../../_base_/imagenet.py"]

_ratios = {
    # The shortcut of the third stage.
    "backbone.layer3.0.conv2_(0, 256)_256": 0.8,
}
model = dict(
    type="ItePruneAlgorithm",
    architecture=dict(cfg_path="mmcls::resnet/resnet34_8xb32_in1k.py"),
    mutator_cfg=dict(
        type="ChannelMutator",
        channel_unit_cfg=dict(type="L1MutableChannelUnit", default_args=dict(choice_mode="ratio")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
    target_pruning_ratio=_ratios,
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/resnet34_8xb32_in1k_20210831-f257d4e6.pth"),
)
