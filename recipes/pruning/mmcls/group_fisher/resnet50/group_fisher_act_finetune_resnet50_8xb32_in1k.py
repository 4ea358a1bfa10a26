"""The ResNet-50 that `group_fisher_act_prune_resnet50_8xb32_in1k.py` has pruned, trained on."""

_base_ = ["../../../_base_/imagenet.py"]

_pruned = "work_dirs/group_fisher_act_prune_resnet50_8xb32_in1k/"
model = dict(
    type="sub_model",
    cfg=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    fix_subnet=_pruned + "fix_subnet.yaml",
    init_cfg=dict(type="Pretrained", checkpoint=_pruned + "fix_subnet_weight.pth"),
)
