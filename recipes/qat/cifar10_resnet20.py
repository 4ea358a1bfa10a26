"""ResNet-20 on CIFAR-10 with its public weights, trained for one epoch on the 8-bit grids of each engine."""

_base_ = ["../ptq/cifar10_resnet20.py"]

qat = dict(epochs=1, batch_size=128, lr=5e-4, optimizer="sgd", shift=4, flip=True, threads=1, samples=10_000)
deploy = dict(max_drop=0.5)
