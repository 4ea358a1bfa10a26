"""The MobileNetV2 that `group_fisher_flops_prune_mobilenet-v2_8xb32_in1k.py` has pruned, trained on."""

_base_ = ["./group_fisher_act_finetune_mobilenet-v2_8xb32_in1k.py"]

_pruned = "work_dirs/group_fisher_flops_prune_mobilenet-v2_8xb32_in1k/"
model = dict(
    fix_subnet=_pruned + "fix_subnet.yaml",
    init_cfg=dict(checkpoint=_pruned + "fix_subnet_weight.pth"),
)
