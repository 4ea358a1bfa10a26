"""Engines of the ResNet-34 that `l1-norm_resnet34_8xb32_in1k_c.py` has pruned."""

_base_ = ["./l1-norm_resnet34_8xb32_in1k_a_deploy.py"]

subnet = "work_dirs/l1-norm_resnet34_8xb32_in1k_c/fix_subnet.yaml"
checkpoint = "work_dirs/l1-norm_resnet34_8xb32_in1k_c/fix_subnet_weight.pth"
