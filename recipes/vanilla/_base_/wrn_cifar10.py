"""Wide residual networks on CIFAR-10 (Zagoruyko and Komodakis 2016): 200 epochs of 8 x 16 images, cosine decay."""

_base_ = ["mmcls::_base_/datasets/cifar10_bs16.py", "mmcls::_base_/default_runtime.py"]

model = dict(
    type="mmcls.ImageClassifier",
    backbone=dict(type="mmrazor.WideResNet", num_stages=3),
    neck=dict(type="mmcls.GlobalAveragePooling"),
    head=dict(type="mmcls.LinearClsHead", num_classes=10, loss=dict(type="mmcls.CrossEntropyLoss"), topk=(1, 5)),
)
optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True))
param_scheduler = dict(type="CosineAnnealingLR", T_max=200, by_epoch=True)
train_cfg = dict(by_epoch=True, max_epochs=200, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=128)
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 32, 32), max_drop=1.0)
