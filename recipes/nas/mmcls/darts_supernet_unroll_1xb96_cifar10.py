"""DARTS of second order on CIFAR-10 (arXiv 1806.09055). Published by mmrazor of the cells found: top-1 97.32."""

_base_ = ["../_base_/cifar10_darts.py", "../_base_/darts.py"]

model = dict(
    type="mmrazor.Darts",
    architecture=dict(
        type="mmcls.ImageClassifier",
        backbone=_base_.nas_backbone,
        neck=dict(type="GlobalAveragePooling"),
        head=dict(
            type="LinearClsHead",
            num_classes=10,
            in_channels=256,
            loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
            topk=(1, 5),
            cal_acc=True,
        ),
    ),
    mutator=dict(type="mmrazor.NasMutator"),
    unroll=True,
)
# The first half of the training images is for the weights, the second for the architecture.
train_dataloader = dict(dataset=dict(indices=25000))
_second_half = dict(
    batch_size=64,
    num_workers=2,
    dataset=dict(
        type="CIFAR10",
        data_prefix="data/cifar10",
        test_mode=False,
        indices=-25000,
        pipeline=[
            dict(type="RandomCrop", crop_size=32, padding=4),
            dict(type="RandomFlip", prob=0.5, direction="horizontal"),
            dict(type="PackClsInputs"),
        ],
    ),
    sampler=dict(type="DefaultSampler", shuffle=True),
    persistent_workers=True,
)
train_cfg = dict(type="mmrazor.DartsEpochBasedTrainLoop", mutator_dataloader=_second_half, max_epochs=50)
optim_wrapper = dict(
    constructor="mmrazor.SeparateOptimWrapperConstructor",
    architecture=dict(
        optimizer=dict(type="SGD", lr=0.025, momentum=0.9, weight_decay=3e-4),
        clip_grad=dict(max_norm=5, norm_type=2),
    ),
    mutator=dict(optimizer=dict(type="Adam", lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3)),
)
param_scheduler = dict(
    architecture=[dict(type="CosineAnnealingLR", T_max=50, eta_min=1e-3, begin=0, end=50)], mutator=[]
)
custom_hooks = [dict(type="mmrazor.DumpSubnetHook", interval=10, by_epoch=True)]
model_wrapper_cfg = dict(type="mmrazor.DartsDDP", broadcast_buffers=False, find_unused_parameters=False)
