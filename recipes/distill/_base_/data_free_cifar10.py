"""Training on generated images of 32x32: an optimizer each for student and generator; CIFAR-10 only validates."""

_base_ = [
    "mmcls::_base_/datasets/cifar10_bs16.py",
    "mmcls::_base_/default_runtime.py",
]

# Teacher of OpenMMLab's model zoo, beside the recipe or in the working directory.
teachers = dict(
    res34=dict(
        build_cfg=dict(cfg_path="mmcls::resnet/resnet34_8xb16_cifar10.py"),
        ckpt_path="checkpoints/resnet34_b16x8_cifar10_20210528-a8aa36a6.pth",
    )
)
train_dataloader = dict(batch_size=256, sampler=dict(type="InfiniteSampler", shuffle=True))
val_dataloader = dict(batch_size=256)
val_cfg = dict(type="SelfDistillValLoop")
default_hooks = dict(
    logger=dict(interval=50, log_metric_by_epoch=False), checkpoint=dict(by_epoch=False, interval=500, max_keep_ckpts=2)
)
log_processor = dict(by_epoch=False)
# Every process has to draw noise of its own.
randomness = dict(diff_rank_seed=True)
model_wrapper_cfg = dict(type="MMSeparateDistributedDataParallel", broadcast_buffers=False, find_unused_parameters=True)
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 32, 32), max_drop=1.0)
