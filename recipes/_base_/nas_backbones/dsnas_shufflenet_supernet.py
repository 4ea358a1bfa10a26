"""SPOS's space over ShuffleNetV2 with choices that DSNAS learns, under mmrazor's name of it."""

_blocks = dict(
    shuffle_3x3=dict(type="ShuffleBlock", kernel_size=3),
    shuffle_5x5=dict(type="ShuffleBlock", kernel_size=5),
    shuffle_7x7=dict(type="ShuffleBlock", kernel_size=7),
    shuffle_xception=dict(type="ShuffleXception"),
)
_choice = dict(type="mmrazor.OneHotMutableOP", candidates=_blocks)
nas_backbone = dict(
    type="mmrazor.SearchableShuffleNetV2",
    arch_setting=[[64, 4, _choice], [160, 4, _choice], [320, 8, _choice], [640, 4, _choice]],
)
