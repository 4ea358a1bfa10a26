"""Group Fisher on MobileNetV2, divided by the multiply-adds of a channel: down to 65% of the multiply-adds.

Published by mmrazor, finetuned: top-1 70.87; unpruned 71.86 with 0.313 G multiply-adds.
"""

_base_ = ["./group_fisher_act_prune_mobilenet-v2_8xb32_in1k.py"]

model = dict(mutator=dict(channel_unit_cfg=dict(default_args=dict(normalization_type="flops"))))
