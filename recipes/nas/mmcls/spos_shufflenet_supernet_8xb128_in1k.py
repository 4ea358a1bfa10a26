"""SPOS over ShuffleNetV2 (arXiv 1904.00420). Published by mmrazor of the subnet found: top-1 73.87 at 0.33 GFLOPs."""

_base_ = ["../_base_/imagenet.py", "../_base_/spos_shufflenet.py"]

_loss = dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original", num_classes=1000)
model = dict(
    type="mmrazor.SPOS",
    architecture=dict(
        type="mmcls.ImageClassifier",
        backbone=_base_.nas_backbone,
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=1000, in_channels=1024, loss=_loss, topk=(1, 5)),
    ),
    mutator=dict(type="mmrazor.NasMutator"),
)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=4e-5),
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0, dwconv_decay_mult=0.0),
)
param_scheduler = dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=True, end=300, convert_to_iter_based=True)
train_cfg = dict(max_epochs=300)
