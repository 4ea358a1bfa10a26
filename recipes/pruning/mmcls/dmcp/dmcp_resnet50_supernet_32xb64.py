"""DMCP on ResNet-50: widths are learned, 2000 million multiply-adds are aimed at.

Published by mmrazor: top-1 76.11 with 2.07 G, in a table that it calls faulty.
"""

_base_ = ["../../_base_/dmcp_supernet.py"]

model = dict(architecture=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"), target_flops=2000)
