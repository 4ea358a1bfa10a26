"""WideResNet-22-4 on CIFAR-10. Published by mmrazor: top-1 94.87."""

_base_ = ["../_base_/wrn_cifar10.py"]

model = dict(backbone=dict(depth=22, widen_factor=4), head=dict(in_channels=256))
