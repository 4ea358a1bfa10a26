"""L1 on ResNet-34, the paper's C: four fifths of the shortcut of one stage.

Published by mmrazor: top-1 73.89 with 3.40 G multiply-adds, 73.62 with 3.68 G unpruned.
"""

_base_ = ["../../_base_/l1_resnet34.py"]

_ratios = {
    # The shortcut of the third stage.
    "backbone.layer3.0.conv2_(0, 256)_256": 0.8,
}
model = dict(target_pruning_ratio=_ratios)
