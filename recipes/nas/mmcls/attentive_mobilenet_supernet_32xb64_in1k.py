"""BigNAS over AttentiveNAS's space (arXiv 2003.11142, 2011.09011): the sandwich rule with in-place distillation.

Published by mmrazor, converted weights: A0 77.19 at 0.212 GFLOPs, A6 80.81 at 0.927 GFLOPs.
"""

_base_ = ["../_base_/imagenet.py", "../_base_/in_place_distillation.py"]

_space = dict(
    kernel_size=[[3, 5, 2]] * 7,
    num_blocks=[[1, 2, 1], [3, 5, 1], [3, 6, 1], [3, 6, 1], [3, 8, 1], [3, 8, 1], [1, 2, 1]],
    expand_ratio=[[1, 1, 1], *[[4, 6, 1]] * 4, *[[6, 6, 1]] * 3],
    num_out_channels=[
        *[[16, 24, 8], [16, 24, 8], [24, 32, 8], [32, 40, 8], [64, 72, 8], [112, 128, 8], [192, 216, 8]],
        *[[216, 224, 8], [1792, 1984, 192]],
    ],
)
model = dict(
    type="mmrazor.BigNAS",
    num_random_samples=2,
    drop_path_rate=0.2,
    backbone_dropout_stages=[6, 7],
    distiller=_base_.distiller,
    mutator=dict(type="mmrazor.NasMutator"),
    architecture=dict(
        type="mmrazor.SearchableImageClassifier",
        backbone=dict(type="AttentiveMobileNetV3", arch_setting=_space, norm_cfg=dict(type="DynamicBatchNorm2d")),
        neck=dict(type="SqueezeMeanPoolingWithDropout", drop_ratio=0.2),
        head=dict(
            type="DynamicLinearClsHead", num_classes=1000, in_channels=1984, loss=_base_.label_smooth, topk=(1, 5)
        ),
        input_resizer_cfg=dict(
            input_resizer=dict(type="DynamicInputResizer"),
            mutable_shape=dict(
                type="OneShotMutableValue",
                value_list=[[192, 192], [224, 224], [256, 256], [288, 288]],
                default_value=[224, 224],
            ),
        ),
        connect_head=dict(connect_with_backbone="backbone.last_mutable_channels"),
    ),
)
model_wrapper_cfg = dict(type="mmrazor.BigNASDDP", broadcast_buffers=False, find_unused_parameters=True)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.8, momentum=0.9, weight_decay=1e-5, nesterov=True),
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0),
    clip_grad=dict(type="value", clip_value=0.2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=3125),
    dict(type="CosineAnnealingLR", T_max=360, eta_min=0, by_epoch=True, begin=0, end=360, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=360)
val_cfg = dict(type="mmrazor.SubnetValLoop", calibrate_sample_num=4096)
