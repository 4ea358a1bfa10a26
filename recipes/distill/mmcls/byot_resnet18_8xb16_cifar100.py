"""BYOT: three early exits learn from the last one (Zhang et al. 2019). Published by mmrazor: top-1 80.66 on CIFAR-100.

The exits are there in training only; what is deployed is the plain ResNet-18.
"""

_base_ = [
    "mmcls::_base_/datasets/cifar100_bs16.py",
    "mmcls::_base_/schedules/cifar10_bs128.py",
    "mmcls::_base_/default_runtime.py",
]

# Exit -> channels.
_exits = {1: 64, 2: 128, 3: 256}


def _of_exit(index, item):
    return dict(recorder=f"bb_s{index}", from_student=True, record_idx=1, connector=f"exit{index}", connector_idx=item)


_label = dict(recorder="gt_labels", from_student=False, data_idx=1)
_deepest = dict(recorder="fc", from_student=False)
_feature = dict(recorder="fc_in", from_student=False, data_idx=0)
model = dict(
    type="SelfDistill",
    architecture=dict(
        cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py",
        head=dict(
            type="LinearClsHead",
            num_classes=100,
            in_channels=512,
            loss=dict(type="CrossEntropyLoss", loss_weight=1.0),
        ),
    ),
    distiller=dict(
        type="BYOTDistiller",
        student_recorders={f"bb_s{i}": dict(type="ModuleOutputs", source=f"backbone.layer{i}.1.relu") for i in _exits},
        teacher_recorders=dict(
            fc=dict(type="ModuleOutputs", source="head.fc"),
            fc_in=dict(type="ModuleInputs", source="head.fc"),
            gt_labels=dict(type="ModuleInputs", source="head.loss_module"),
        ),
        connectors={
            f"exit{i}": dict(
                type="BYOTConnector", in_channel=c, out_channel=512, num_classes=100, expansion=1, stride=2, pool_size=4
            )
            for i, c in _exits.items()
        },
        distill_losses={
            key: value
            for i in _exits
            for key, value in {
                f"loss_fet_{i}": dict(type="L2Loss", normalize=False, dist=True, loss_weight=0.03 if i < 3 else 0.0),
                f"loss_label_{i}": dict(type="mmcls.CrossEntropyLoss", loss_weight=0.7),
                f"loss_softl_{i}": dict(type="KDSoftCELoss", tau=3, loss_weight=0.3),
            }.items()
        },
        loss_forward_mappings={
            key: value
            for i in _exits
            for key, value in {
                f"loss_fet_{i}": dict(s_feature=_of_exit(i, 0), t_feature=_feature),
                f"loss_label_{i}": dict(cls_score=_of_exit(i, 1), label=_label),
                f"loss_softl_{i}": dict(preds_S=_of_exit(i, 1), preds_T=_deepest),
            }.items()
        },
    ),
)
optim_wrapper = dict(optimizer=dict(weight_decay=5e-4))
param_scheduler = dict(milestones=[80, 160, 240])
train_cfg = dict(max_epochs=250)
val_cfg = dict(type="SelfDistillValLoop")
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shape=(3, 32, 32), max_drop=1.0)
