"""AttentiveNAS's space (arXiv 2011.09011), under mmrazor's name of it."""

arch_setting = dict(
    kernel_size=[[3, 5, 2]] * 7,
    num_blocks=[[1, 2, 1], [3, 5, 1], [3, 6, 1], [3, 6, 1], [3, 8, 1], [3, 8, 1], [1, 2, 1]],
    expand_ratio=[[1, 1, 1], *[[4, 6, 1]] * 4, *[[6, 6, 1]] * 3],
    num_out_channels=[
        *[[16, 24, 8], [16, 24, 8], [24, 32, 8], [32, 40, 8], [64, 72, 8], [112, 128, 8], [192, 216, 8]],
        *[[216, 224, 8], [1792, 1984, 192]],
    ],
)
input_resizer_cfg = dict(
    input_resizer=dict(type="mmrazor.DynamicInputResizer"),
    mutable_shape=dict(
        type="mmrazor.OneShotMutableValue",
        value_list=[[192, 192], [224, 224], [256, 256], [288, 288]],
        default_value=[224, 224],
    ),
)
nas_backbone = dict(
    type="mmrazor.AttentiveMobileNetV3",
    arch_setting=arch_setting,
    norm_cfg=dict(type="mmrazor.DynamicBatchNorm2d"),
)
