"""ImageNet by mmcls: 100 epochs, batches of 2,048 over 32 processes, a linear schedule with warm-up."""

_base_ = ["./imagenet.py"]

train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    _delete_=True,
    constructor="SeparateOptimWrapperConstructor",
    architecture=dict(optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=1e-4, nesterov=True)),
    mutator=dict(optimizer=dict(type="Adam", lr=0.5, weight_decay=1e-4)),
)
param_scheduler = dict(_delete_=True, type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=62500)
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
