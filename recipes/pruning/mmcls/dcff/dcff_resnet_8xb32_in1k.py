"""DCFF on ResNet-50, from scratch. Published by mmrazor: top-1 73.96 with 2.26 G multiply-adds and 15.16 M parameters.

The inner channels of every block are fused to under two thirds; those that the shortcuts tie together stay.
"""

_base_ = ["../../_base_/imagenet.py"]

_inner = {
    f"backbone.layer{stage}.{block}.{conv}_(0, {width})_{width}": 0.64
    for stage, blocks, width in ((1, 3, 64), (2, 4, 128), (3, 6, 256), (4, 3, 512))
    for block in range(blocks)
    for conv in ("conv1", "conv2")
}
model = dict(
    type="DCFF",
    architecture=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    mutator_cfg=dict(
        type="DCFFChannelMutator",
        channel_unit_cfg=dict(type="DCFFChannelUnit", default_args=dict(choice_mode="ratio")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
    target_pruning_ratio=_inner,
)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4))
param_scheduler = dict(_delete_=True, type="MultiStepLR", by_epoch=True, milestones=[30, 60, 90], gamma=0.1)
train_cfg = dict(by_epoch=True, max_epochs=120, val_interval=1)
