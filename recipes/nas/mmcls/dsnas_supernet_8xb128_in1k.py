"""DSNAS over SPOS's space (arXiv 2002.09128). Published by mmrazor: top-1 73.56 at 0.299 GFLOPs."""

_base_ = ["spos_shufflenet_supernet_8xb128_in1k.py"]

_one_hot_blocks = dict(
    shuffle_3x3=dict(type="ShuffleBlock", kernel_size=3),
    shuffle_5x5=dict(type="ShuffleBlock", kernel_size=5),
    shuffle_7x7=dict(type="ShuffleBlock", kernel_size=7),
    shuffle_xception=dict(type="ShuffleXception"),
)
_one_hot_choice = dict(type="mmrazor.OneHotMutableOP", candidates=_one_hot_blocks)
model = dict(
    type="mmrazor.DSNAS",
    architecture=dict(
        backbone=dict(
            arch_setting=[
                [64, 4, _one_hot_choice],
                [160, 4, _one_hot_choice],
                [320, 8, _one_hot_choice],
                [640, 4, _one_hot_choice],
            ]
        )
    ),
    pretrain_epochs=15,
    finetune_epochs=240,
    flops_constraints=300.0,
    estimator_cfg=dict(input_shape=(1, 3, 224, 224)),
)
optim_wrapper = dict(
    _delete_=True,
    constructor="mmrazor.SeparateOptimWrapperConstructor",
    architecture=dict(
        optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=4e-5),
        paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0),
    ),
    mutator=dict(optimizer=dict(type="Adam", lr=1e-3, weight_decay=0.0, betas=(0.5, 0.999))),
)
param_scheduler = dict(
    _delete_=True,
    architecture=[
        dict(type="LinearLR", end=5, by_epoch=True, start_factor=1e-4),
        dict(type="CosineAnnealingLR", T_max=240, begin=5, eta_min=0.0, by_epoch=True),
    ],
    mutator=[],
)
model_wrapper_cfg = dict(type="mmrazor.DSNASDDP", broadcast_buffers=False, find_unused_parameters=True)
train_cfg = dict(max_epochs=240)
