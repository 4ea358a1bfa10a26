"""Engines of the ResNet-50 that is pruned by Group Fisher and finetuned."""

_base_ = ["mmcls::resnet/resnet50_8xb32_in1k.py"]

subnet = "work_dirs/group_fisher_flops_prune_resnet50_8xb32_in1k/fix_subnet.yaml"
checkpoint = "work_dirs/group_fisher_flops_finetune_resnet50_8xb32_in1k/subnet.pth"
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
