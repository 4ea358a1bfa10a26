"""ResNet-18 of mmcls on CIFAR-10 images: int8 by calibration on 300 training images.

`--set data_root=DIR` reads DIR/train/<class>/*.jpg and DIR/test/<class>/*.jpg; `--checkpoint F` gives the weights.
"""

_base_ = ["mmcls::resnet/resnet18_8xb16_cifar10.py"]

data_root = "data/cifar10"

# mmcls reads image files as BGR; the base config is for CIFAR-10's own files, which are RGB already.
data_preprocessor = dict(to_rgb=True)

_load = [dict(type="LoadImageFromFile")]
_pack = [dict(type="PackClsInputs")]


def _images(split, pipeline):
    return dict(type="CustomDataset", data_root=data_root, data_prefix=split, pipeline=pipeline)


# Training images, but none of the training augmentations: the ranges wanted are those at inference.
calibrate_dataloader = dict(
    batch_size=50,
    num_workers=0,
    dataset=_images("train", _load + _pack),
    sampler=dict(type="DefaultSampler", shuffle=True),
)
train_dataloader = dict(dataset=dict(_delete_=True, **_images("train", _load + _base_.train_pipeline)))
val_dataloader = dict(batch_size=100, num_workers=0, dataset=dict(_delete_=True, **_images("test", _load + _pack)))
test_dataloader = val_dataloader

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino"], input_shape=(3, 32, 32), max_drop=1.0)
