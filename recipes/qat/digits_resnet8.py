"""The small residual CNN on digits, trained on the grids of each engine; `razordeploy train` makes its float weights.

Two epochs from the calibrated scales, which are learned with the weights.
"""

_base_ = ["../ptq/digits_resnet8.py"]

qat = dict(epochs=2, batch_size=64, lr=1e-3, optimizer="sgd", shift=1, threads=1)
