"""Once-for-All over MobileNetV3 (arXiv 1908.09791), trained as BigNAS trains.

Published by mmrazor, converted weights: 70.3 at 22 ms and 72.6 at 31 ms on a phone, 77.5 for the supernet.
"""

_base_ = ["attentive_mobilenet_supernet_32xb64_in1k.py"]

_space = dict(
    _delete_=True,
    kernel_size=[[3, 3, 1], *[[3, 7, 2]] * 5],
    num_blocks=[[1, 1, 1], *[[2, 4, 1]] * 5],
    expand_ratio=[[1, 1, 1], *[[3, 6, 1]] * 5, [6, 6, 1]],
    num_out_channels=[
        *[[16, 16, 8], [16, 16, 8], [16, 24, 8], [24, 40, 8], [40, 80, 8], [80, 112, 8], [112, 160, 8]],
        [1024, 1280, 256],
    ],
)
model = dict(
    architecture=dict(
        backbone=dict(
            arch_setting=_space,
            out_indices=(6,),
            stride_list=[1, 2, 2, 2, 1, 2],
            with_se_list=[False, False, True, False, True, True],
            act_cfg_list=["HSwish", *["ReLU"] * 3, *["HSwish"] * 5],
            conv_cfg=dict(type="OFAConv2d"),
            norm_cfg=dict(type="DynamicBatchNorm2d", momentum=0.1),
            fine_grained_mode=True,
            with_attentive_shortcut=False,
        ),
        neck=dict(_delete_=True, type="mmcls.GlobalAveragePooling"),
        head=dict(in_channels=1280),
        input_resizer_cfg=dict(
            _delete_=True, input_sizes=[[side, side] for side in (128, 140, 144, 152, 192, 204, 224, 256)]
        ),
    )
)
