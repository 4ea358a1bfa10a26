"""Engines of the ResNet-34 that `l1-norm_resnet34_8xb32_in1k_c.py` has pruned."""

_base_ = ["mmcls::resnet/resnet34_8xb32_in1k.py"]

subnet = "work_dirs/l1-norm_resnet34_8xb32_in1k_c/fix_subnet.yaml"
checkpoint = "work_dirs/l1-norm_resnet34_8xb32_in1k_c/fix_subnet_weight.pth"
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
