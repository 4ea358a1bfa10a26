"""L1 on ResNet-34, the paper's A: seven tenths of the inner channels of eight blocks.

Published by mmrazor: top-1 73.61 with 3.10 G multiply-adds, 73.62 with 3.68 G unpruned.
"""

_base_ = ["../../_base_/l1_resnet34.py"]

_ratios = {
    "backbone.layer1.0.conv1_(0, 64)_64": 0.7,
    "backbone.layer1.1.conv1_(0, 64)_64": 0.7,
    "backbone.layer2.1.conv1_(0, 128)_128": 0.7,
    "backbone.layer2.2.conv1_(0, 128)_128": 0.7,
    "backbone.layer3.1.conv1_(0, 256)_256": 0.7,
    "backbone.layer3.2.conv1_(0, 256)_256": 0.7,
    "backbone.layer3.3.conv1_(0, 256)_256": 0.7,
    "backbone.layer3.4.conv1_(0, 256)_256": 0.7,
}
model = dict(target_pruning_ratio=_ratios)
