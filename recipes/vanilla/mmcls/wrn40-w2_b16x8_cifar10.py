"""WideResNet-40-2 on CIFAR-10. Published by mmrazor: top-1 94.67."""

_base_ = ["../_base_/wrn_cifar10.py"]

model = dict(backbone=dict(depth=40, widen_factor=2), head=dict(in_channels=128))
