"""Greedy slimming of the supernet that `pruning/digits/autoslim_resnet8_supernet.py` has trained, to three sizes.

Writes a subnet file for each target, in millions of multiply-accumulates.
"""

_base_ = ["../../pruning/digits/autoslim_resnet8_supernet.py"]

search = dict(type="greedy", targets=[0.6, 0.4, 0.2], split="train", num_samples=500, recalibrate=300)
executor = dict(type="local", max_parallel=2, cpus=1)
