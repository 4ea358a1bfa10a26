"""Group Fisher on ResNet-50, divided by the multiply-adds of a channel: down to 50% of the multiply-adds.

Published by mmrazor, finetuned: top-1 75.61; unpruned 76.55 with 4.11 G multiply-adds.
"""

_base_ = ["./group_fisher_act_prune_resnet50_8xb32_in1k.py"]

model = dict(mutator=dict(channel_unit_cfg=dict(default_args=dict(normalization_type="flops"))))
