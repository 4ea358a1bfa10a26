"""Greedy slimming of AutoSlim's supernet of the digits, to a half and a quarter of the multiply-accumulates.

`razordeploy train pruning/digits/autoslim_resnet8_supernet.py` makes the supernet.
"""

_base_ = ["autoslim_resnet8_supernet.py"]

search = dict(
    type="greedy",
    targets=[0.38, 0.19],
    # Subnets are compared on training images; the test images are for what is chosen.
    split="train",
    recalibrate=300,
)
executor = dict(type="local", max_parallel=1, cpus=1)
