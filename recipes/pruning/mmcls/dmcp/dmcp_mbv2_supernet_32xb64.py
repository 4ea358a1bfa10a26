"""DMCP on MobileNetV2: widths are learned, 100 million multiply-adds are aimed at.

Published by mmrazor: top-1 71.94 with 209 M and 67.22 with 102 M, in a table that it calls faulty.
"""

_base_ = ["../../_base_/dmcp_supernet.py"]

model = dict(architecture=dict(cfg_path="mmcls::mobilenet_v2/mobilenet-v2_8xb32_in1k.py"), target_flops=100)
