"""WideResNet-16-2 on CIFAR-10. Published by mmrazor: top-1 93.04."""

_base_ = ["../_base_/wrn_cifar10.py"]

model = dict(backbone=dict(depth=16, widen_factor=2), head=dict(in_channels=128))
