"""MobileNetV2 x 1.5, and how AutoSlim trains it: batches of 2,048, a linear schedule."""

_base_ = ["../../pruning/_base_/imagenet.py"]

supernet = dict(
    type="ImageClassifier",
    backbone=dict(type="MobileNetV2", widen_factor=1.5),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead",
        num_classes=1000,
        in_channels=1920,
        loss=dict(type="LabelSmoothLoss", mode="original", num_classes=1000, label_smooth_val=0.1, loss_weight=1.0),
        topk=(1, 5),
    ),
    data_preprocessor=dict(num_classes=1000, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True),
)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(_delete_=True, optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(_delete_=True, type="PolyLR", power=1.0, eta_min=0.0, by_epoch=True, begin=0, end=300)
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
