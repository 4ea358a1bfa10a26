"""ImageNet, 32 x 64 images a step, as AutoFormer trains (arXiv 2107.00651)."""

_base_ = ["mmcls::_base_/datasets/imagenet_bs64.py"]

train_dataloader = dict(batch_size=64)
data_preprocessor = dict(
    batch_augments=dict(augments=[dict(type="Mixup", alpha=0.2), dict(type="CutMix", alpha=1.0)], probs=[0.5, 0.5])
)
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
train_cfg = dict(by_epoch=True, max_epochs=500, val_interval=1)
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
