"""DeiT: a distillation token learns the hard labels of RegNetY-16GF (Touvron et al. 2021). Published: top-1 83.24.

The class token has the labels' loss, the distillation token that of the teacher's class, half each. Needs timm.
"""

_base_ = ["mmcls::deit/deit-base-distilled_pt-16xb64_in1k.py"]

_checkpoint = "checkpoints/regnety_160-a5fe301d.pth"
model = dict(
    _delete_=True,
    type="SingleTeacherDistill",
    # Mixup and CutMix, before both see the batch.
    data_preprocessor=dict(
        type="mmcls.ClsDataPreprocessor", batch_augments=_base_.model.train_cfg, **_base_.data_preprocessor
    ),
    architecture={**_base_.model, "_scope_": "mmcls"},
    teacher=dict(
        _scope_="mmcls",
        type="ImageClassifier",
        backbone=dict(type="TIMMBackbone", model_name="regnety_160", checkpoint_path=_checkpoint),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(
            type="LinearClsHead",
            num_classes=1000,
            in_channels=3024,
            init_cfg=dict(type="Pretrained", checkpoint=_checkpoint, prefix="head."),
        ),
    ),
    calculate_student_loss=False,
    distiller=dict(
        student_recorders=dict(
            cls=dict(type="ModuleOutputs", source="head.layers.head"),
            dist=dict(type="ModuleOutputs", source="head.layers.head_dist"),
            gt_labels=dict(type="ModuleInputs", source="head.loss_module"),
        ),
        teacher_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
        distill_losses=dict(
            loss_cls=dict(type="mmcls.LabelSmoothLoss", label_smooth_val=0.1, mode="original", loss_weight=0.5),
            loss_distill=dict(type="CrossEntropyLoss", loss_weight=0.5),
        ),
        loss_forward_mappings=dict(
            loss_cls=dict(
                cls_score=dict(recorder="cls", from_student=True),
                label=dict(recorder="gt_labels", from_student=True, data_idx=1),
            ),
            loss_distill=dict(
                preds_S=dict(recorder="dist", from_student=True), preds_T=dict(recorder="fc", from_student=False)
            ),
        ),
    ),
)
val_cfg = dict(type="SingleTeacherDistillValLoop")
calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino"], input_shape=(3, 224, 224), max_drop=1.0)
