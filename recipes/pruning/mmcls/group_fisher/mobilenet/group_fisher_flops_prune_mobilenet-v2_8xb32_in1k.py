"""Group Fisher on MobileNetV2, divided by the multiply-adds of a channel: down to 65% of the multiply-adds.

Published by mmrazor, finetuned: top-1 70.87; unpruned 71.86 with 0.313 G multiply-adds.
"""

_base_ = ["../../../_base_/imagenet.py"]

model = dict(
    type="GroupFisherAlgorithm",
    architecture=dict(cfg_path="mmcls::mobilenet_v2/mobilenet-v2_8xb32_in1k.py"),
    mutator=dict(
        type="GroupFisherChannelMutator",
        channel_unit_cfg=dict(type="GroupFisherChannelUnit", default_args=dict(normalization_type="flops")),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
    interval=25,
    init_cfg=dict(type="Pretrained", checkpoint="checkpoints/mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth"),
)
model_wrapper_cfg = dict(type="mmrazor.GroupFisherDDP", broadcast_buffers=False)
# Pruning is unsettling: a tenth of the usual rate or less.
optim_wrapper = dict(optimizer=dict(lr=0.0050625))
custom_hooks = [
    dict(type="mmrazor.PruningStructureHook"),
    dict(type="mmrazor.ResourceInfoHook", interval=25, save_ckpt_thr=[0.65]),
]
