"""WideResNet-28-4 on CIFAR-10. Published by mmrazor: top-1 95.41."""

_base_ = ["../_base_/wrn_cifar10.py"]

model = dict(backbone=dict(depth=28, widen_factor=4), head=dict(in_channels=256))
