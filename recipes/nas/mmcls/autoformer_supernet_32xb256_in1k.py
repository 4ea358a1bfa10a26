"""AutoFormer, base space (arXiv 2107.00651). Published by mmrazor: top-1 82.47 at 10.57 GFLOPs."""

_base_ = ["../_base_/imagenet.py", "../_base_/in_place_distillation.py"]

# Only its loss is used of that base.
distiller = None
model = dict(
    type="mmrazor.Autoformer",
    mutator=dict(type="mmrazor.NasMutator"),
    architecture=dict(
        type="mmrazor.SearchableImageClassifier",
        backbone=dict(type="AutoformerBackbone"),
        head=dict(
            type="DynamicLinearClsHead", num_classes=1000, in_channels=624, loss=_base_.label_smooth, topk=(1, 5)
        ),
        connect_head=dict(connect_with_backbone="backbone.last_mutable"),
    ),
)
data_preprocessor = dict(
    type="mmcls.ClsDataPreprocessor",
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    batch_augments=dict(augments=[dict(type="Mixup", alpha=0.2), dict(type="CutMix", alpha=1.0)], probs=[0.5, 0.5]),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=0.002, weight_decay=0.05, eps=1e-8, betas=(0.9, 0.999)),
    paramwise_cfg=dict(custom_keys={".cls_token": dict(decay_mult=0.0), ".pos_embed": dict(decay_mult=0.0)}),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=True, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type="CosineAnnealingLR", T_max=500, eta_min=1e-5, by_epoch=True, begin=20, end=500, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=500)
custom_hooks = [dict(type="EMAHook", momentum=4e-5, priority="ABOVE_NORMAL")]
