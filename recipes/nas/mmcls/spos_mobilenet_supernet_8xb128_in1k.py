"""SPOS over MobileNetV2's blocks. Published by mmrazor of the subnet found: top-1 75.98 at 0.49 GFLOPs."""

_base_ = ["../_base_/imagenet.py", "../_base_/spos_mobilenet.py"]

_loss = dict(type="LabelSmoothLoss", label_smooth_val=0.1, mode="original", num_classes=1000)
model = dict(
    type="mmrazor.SPOS",
    architecture=dict(
        type="mmcls.ImageClassifier",
        backbone=_base_.nas_backbone,
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=1000, in_channels=1728, loss=_loss, topk=(1, 5)),
    ),
    mutator=dict(type="mmrazor.NasMutator"),
)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=4e-5),
    paramwise_cfg=dict(bias_decay_mult=0.0, norm_decay_mult=0.0, dwconv_decay_mult=0.0),
)
param_scheduler = dict(type="PolyLR", power=1.0, eta_min=0.0, by_epoch=True, end=300, convert_to_iter_based=True)
train_cfg = dict(max_epochs=300)
