"""The MobileNetV2 that `group_fisher_act_prune_mobilenet-v2_8xb32_in1k.py` has pruned, trained on."""

_base_ = ["../../../_base_/imagenet.py"]

_pruned = "work_dirs/group_fisher_act_prune_mobilenet-v2_8xb32_in1k/"
model = dict(
    type="sub_model",
    cfg=dict(cfg_path="mmcls::mobilenet_v2/mobilenet-v2_8xb32_in1k.py"),
    fix_subnet=_pruned + "fix_subnet.yaml",
    init_cfg=dict(type="Pretrained", checkpoint=_pruned + "fix_subnet_weight.pth"),
)
optim_wrapper = dict(optimizer=dict(lr=0.045, weight_decay=4e-5))
param_scheduler = dict(_delete_=True, type="StepLR", by_epoch=True, step_size=1, gamma=0.98)
train_cfg = dict(max_epochs=300)
