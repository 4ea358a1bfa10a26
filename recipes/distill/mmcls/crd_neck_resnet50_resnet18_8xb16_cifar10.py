"""CRD: contrast of embeddings with a memory of all training images (Tian et al. 2020). Published by mmrazor: 94.79."""

_base_ = ["../_base_/cifar10.py"]

_neck = dict(type="ModuleOutputs", source="neck.gap")
_negatives = 16384
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(cfg_path="mmcls::resnet/resnet18_8xb16_cifar10.py"),
    teacher=dict(cfg_path="mmcls::resnet/resnet50_8xb16_cifar10.py"),
    teacher_ckpt="checkpoints/resnet50_b16x8_cifar10_20210528-f54bfad9.pth",
    distiller=dict(
        student_recorders=dict(neck=_neck, call=dict(type="ModuleInputs", source="")),
        teacher_recorders=dict(neck=_neck),
        connectors=dict(
            loss_crd_stu=dict(type="CRDConnector", dim_in=512, dim_out=128),
            loss_crd_tea=dict(type="CRDConnector", dim_in=2048, dim_out=128),
        ),
        distill_losses=dict(loss_crd=dict(type="CRDLoss", loss_weight=0.8, sample_n=50000, neg_num=_negatives)),
        loss_forward_mappings=dict(
            loss_crd=dict(
                s_feats=dict(recorder="neck", from_student=True, connector="loss_crd_stu"),
                t_feats=dict(recorder="neck", from_student=False, connector="loss_crd_tea"),
                data_samples=dict(recorder="call", from_student=True, data_idx=1),
            )
        ),
    ),
)
# Negatives of other classes, drawn with each image.
train_dataloader = dict(
    dataset=dict(_delete_=True, type="CRDDataset", neg_num=_negatives, dataset=_base_.train_dataloader.dataset)
)
