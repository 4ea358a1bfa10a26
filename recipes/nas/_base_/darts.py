"""DARTS's space: cells of four nodes, eight operations on every edge."""

_blocks = dict(
    zero=dict(type="DartsZero"),
    skip_connect=dict(type="DartsSkipConnect", use_drop_path=True),
    max_pool_3x3=dict(type="DartsPoolBN", pool_type="max", use_drop_path=True),
    avg_pool_3x3=dict(type="DartsPoolBN", pool_type="avg", use_drop_path=True),
    sep_conv_3x3=dict(type="DartsSepConv", kernel_size=3, use_drop_path=True),
    sep_conv_5x5=dict(type="DartsSepConv", kernel_size=5, use_drop_path=True),
    dil_conv_3x3=dict(type="DartsDilConv", kernel_size=3, use_drop_path=True),
    dil_conv_5x5=dict(type="DartsDilConv", kernel_size=5, use_drop_path=True),
)
nas_backbone = dict(
    type="mmrazor.DartsBackbone",
    in_channels=3,
    base_channels=16,
    num_layers=8,
    num_nodes=4,
    stem_multiplier=3,
    out_indices=(7,),
    mutable_cfg=dict(type="mmrazor.DiffMutableOP", candidates=_blocks),
    route_cfg=dict(type="mmrazor.DiffChoiceRoute", with_arch_param=True),
    norm_cfg=dict(type="BN", affine=False),
)
