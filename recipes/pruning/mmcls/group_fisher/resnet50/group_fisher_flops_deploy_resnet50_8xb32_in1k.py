"""Engines of the ResNet-50 that is pruned by Group Fisher and finetuned."""

_base_ = ["./group_fisher_act_deploy_resnet50_8xb32_in1k.py"]

subnet = "work_dirs/group_fisher_flops_prune_resnet50_8xb32_in1k/fix_subnet.yaml"
checkpoint = "work_dirs/group_fisher_flops_finetune_resnet50_8xb32_in1k/subnet.pth"
