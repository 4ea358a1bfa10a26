"""CIFAR-10 by mmcls as DARTS uses it."""

_base_ = ["mmcls::_base_/datasets/cifar10_bs16.py", "mmcls::_base_/default_runtime.py"]

train_dataloader = dict(batch_size=64)
val_dataloader = dict(batch_size=128)
val_evaluator = dict(type="Accuracy", topk=(1,))
val_cfg = dict()
test_cfg = dict()
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 32, 32), max_drop=1.0)
