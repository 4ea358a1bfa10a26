"""L1 on ResNet-34, the paper's A: seven tenths of the inner channels of eight blocks.

Published by mmrazor: top-1 73.61 with 3.10 G multiply-adds, 73.62 with 3.68 G unpruned.
"""

_base_ = ["../../_base_/imagenet.py"]

_ratios = {
    "backbone.layer1.0.conv1_(0, 64)_64": 0.7,
    "backbone.layer1.1.conv1_(0, 64)_64": 0.7,
    "backbone.layer2.1.conv1_(0, 128)_128": 0.7,
    "backbone.layer2.2.conv1_(0, 128)_128": 0.7,
    "backbone.layer3.1.conv1_(0, 256)_256": 0.7,
    "backbone.layer3.2.conv1_(0, 256)_256": 0.7,
    "backbone.layer3.3.conv1_(0, 256)_256": 0.7,
    "backbone.layer3.4.conv1_(0, 256)_256": 0.7,
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
