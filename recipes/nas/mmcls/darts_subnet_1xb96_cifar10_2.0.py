"""The network of the cells of DARTS, second order, as published (arXiv 1806.09055, figures 4 and 5), trained anew.

Published by mmrazor: top-1 97.27. `fix_subnet` may be any file of a search in this space.
"""

_base_ = ["../_base_/cifar10_darts.py", "../_base_/darts.py"]

model = dict(
    type="mmrazor.sub_model",
    cfg=dict(
        type="mmcls.ImageClassifier",
        backbone=dict(
            **{
                **_base_.nas_backbone,
                "base_channels": 36,
                "num_layers": 20,
                "auxliary": True,
                "aux_channels": 128,
                "aux_out_channels": 768,
                "out_indices": (19,),
                "norm_cfg": dict(type="BN", affine=True),
            }
        ),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(
            type="mmrazor.DartsSubnetClsHead",
            num_classes=10,
            in_channels=576,
            aux_in_channels=768,
            loss=dict(type="mmcls.CrossEntropyLoss", loss_weight=1.0),
            aux_loss=dict(type="mmcls.CrossEntropyLoss", loss_weight=0.4),
        ),
    ),
    fix_subnet="DARTS_V2.yaml",
)
train_dataloader = dict(batch_size=96)
train_cfg = dict(by_epoch=True, max_epochs=600)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.025, momentum=0.9, weight_decay=3e-4), clip_grad=dict(max_norm=5, norm_type=2)
)
param_scheduler = [dict(type="CosineAnnealingLR", T_max=600, by_epoch=True, begin=0, end=600)]
