"""SPOS's space over MobileNetV2, that of ProxylessNAS on GPUs: twenty-one choices of six blocks or none."""

_blocks = {
    f"mb_k{kernel}e{ratio}": dict(type="MBBlock", kernel_size=kernel, expand_ratio=ratio, act_cfg=dict(type="ReLU6"))
    for ratio in (3, 6)
    for kernel in (3, 5, 7)
}
_choice = dict(type="mmrazor.OneShotMutableOP", candidates=dict(**_blocks, identity=dict(type="Identity")))
_first = dict(
    type="mmrazor.OneShotMutableOP",
    candidates=dict(mb_k3e1=dict(type="MBBlock", kernel_size=3, expand_ratio=1, act_cfg=dict(type="ReLU6"))),
)
nas_backbone = dict(
    type="mmrazor.SearchableMobileNetV2",
    first_channels=40,
    last_channels=1728,
    arch_setting=[
        [24, 1, 1, _first],
        [32, 4, 2, _choice],
        [56, 4, 2, _choice],
        [112, 4, 2, _choice],
        [128, 4, 1, _choice],
        [256, 4, 2, _choice],
        [432, 1, 1, _choice],
    ],
)
