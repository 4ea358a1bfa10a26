"""The logits of the largest subnet teach the others."""

_logits = dict(fc=dict(type="ModuleOutputs", source="head.fc"))
distiller = dict(
    type="ConfigurableDistiller",
    teacher_recorders=_logits,
    student_recorders=_logits,
    distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=1, loss_weight=1)),
    loss_forward_mappings=dict(
        loss_kl=dict(preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False))
    ),
)
label_smooth = dict(type="mmcls.LabelSmoothLoss", label_smooth_val=0.1, mode="original", num_classes=1000)
