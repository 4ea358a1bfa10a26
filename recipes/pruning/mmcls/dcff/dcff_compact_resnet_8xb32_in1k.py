"""Engines of the compact ResNet-50 that `dcff_resnet_8xb32_in1k.py` has trained."""

_base_ = ["mmcls::resnet/resnet50_8xb32_in1k.py"]

subnet = "work_dirs/dcff_resnet_8xb32_in1k/fix_subnet.yaml"
checkpoint = "work_dirs/dcff_resnet_8xb32_in1k/fix_subnet_weight.pth"
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 224, 224), max_drop=1.0)
