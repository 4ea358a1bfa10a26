"""Once-for-All's space over MobileNetV3 (arXiv 1908.09791), under mmrazor's name of it."""

arch_setting = dict(
    kernel_size=[[3, 3, 1], *[[3, 7, 2]] * 5],
    num_blocks=[[1, 1, 1], *[[2, 4, 1]] * 5],
    expand_ratio=[[1, 1, 1], *[[3, 6, 1]] * 5, [6, 6, 1]],
    num_out_channels=[
        *[[16, 16, 8], [16, 16, 8], [16, 24, 8], [24, 40, 8], [40, 80, 8], [80, 112, 8], [112, 160, 8]],
        [1024, 1280, 256],
    ],
)
input_resizer_cfg = dict(input_sizes=[[side, side] for side in (128, 140, 144, 152, 192, 204, 224, 256)])
nas_backbone = dict(
    type="mmrazor.AttentiveMobileNetV3",
    arch_setting=arch_setting,
    out_indices=(6,),
    stride_list=[1, 2, 2, 2, 1, 2],
    with_se_list=[False, False, True, False, True, True],
    act_cfg_list=["HSwish", *["ReLU"] * 3, *["HSwish"] * 5],
    conv_cfg=dict(type="mmrazor.OFAConv2d"),
    norm_cfg=dict(type="mmrazor.DynamicBatchNorm2d", momentum=0.1),
    fine_grained_mode=True,
    with_attentive_shortcut=False,
)
