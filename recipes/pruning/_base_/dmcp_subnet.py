"""A subnet of DMCP, trained from scratch."""

_base_ = ["./imagenet.py"]

model = dict(
    type="sub_model",
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(_delete_=True, optimizer=dict(type="SGD", lr=0.5, momentum=0.9, weight_decay=1e-4, nesterov=True))
param_scheduler = dict(_delete_=True, type="PolyLR", power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=62500)
