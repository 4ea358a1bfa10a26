"""Group Fisher on ResNet-50, divided by the multiply-adds of a channel: down to 50% of the multiply-adds.

Published by mmrazor, finetuned: top-1 75.61; unpruned 76.55 with 4.11 G multiply-adds.
"""

_base_ = ["../../../_base_/imagenet.py"]

model = dict(
    type="GroupFisherAlgorithm",
    architecture=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    mutator=dict(
        type="GroupFisherChannelMutator",
        channel_unit_cfg=dict(type="GroupFisherChannelUnit", default_args=dict(normalization_type="flops")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
    interval=25,
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/resnet50_8xb32_in1k_20210831-ea4938fc.pth"),
)
model_wrapper_cfg = dict(type="mmrazor.GroupFisherDDP", broadcast_buffers=False)
# Pruning is unsettling: a tenth of the usual rate or less.
optim_wrapper = dict(optimizer=dict(lr=0.004))
custom_hooks = [
    dict(type="mmrazor.PruningStructureHook"),
    dict(type="mmrazor.ResourceInfoHook", interval=25, save_ckpt_thr=[0.5]),
]
