"""AutoSlim: a supernet of MobileNetV2 x 1.5, in twelfths of every width.

Published by mmrazor for subnets of it: top-1 74.23 with 530 M, 72.73 with 320 M, 71.4 with 220 M multiply-adds.
"""

_base_ = ["../../../pruning/_base_/imagenet.py"]

_fc = dict(type="ModuleOutputs", source="head.fc")
_in_place = dict(
    student_recorders=dict(fc=_fc),
    teacher_recorders=dict(fc=_fc),
    distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=1, loss_weight=1)),
    loss_forward_mappings=dict(
        loss_kl=dict(preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False))
    ),
)
_supernet = dict(
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
model = dict(
    type="AutoSlim",
    num_random_samples=2,
    architecture=_supernet,
    distiller=_in_place,
    mutator=dict(
        type="OneShotChannelMutator",
        channel_unit_cfg=dict(
            type="OneShotMutableChannelUnit",
            default_args=dict(candidate_choices=[i / 12 for i in range(2, 13)], choice_mode="ratio", divisor=8),
        ),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
)
model_wrapper_cfg = dict(type="mmrazor.AutoSlimDDP", broadcast_buffers=False, find_unused_parameters=True)
train_dataloader = dict(batch_size=256)
optim_wrapper = dict(_delete_=True, optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(_delete_=True, type="PolyLR", power=1.0, eta_min=0.0, by_epoch=True, begin=0, end=50)
train_cfg = dict(by_epoch=True, max_epochs=50, val_interval=1)
