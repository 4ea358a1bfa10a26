"""Prune, distil, quantize: half the width of the small CNN on digits, taught by the whole one, trained on int8 grids.

Seconds per stage on two CPU cores; the report holds every model and engine against the first.
"""

_base_ = ["../../ptq/digits_resnet8.py"]

_fc = dict(type="ModuleOutputs", source="linear")
_distilled = dict(
    type="SingleTeacherDistill",
    # The folder of a stage is what its name in braces stands for.
    architecture=dict(type="razordeploy.sliced:load_model", path="{slice}"),
    teacher=dict(type="razordeploy.models.digits:resnet8", num_classes=10),
    teacher_ckpt="{train}/model.pth",
    distiller=dict(
        student_recorders=dict(fc=_fc),
        teacher_recorders=dict(fc=_fc),
        distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=4)),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False)
            )
        ),
    ),
)
qat = dict(epochs=2, batch_size=64, lr=1e-3, optimizer="sgd", shift=1, threads=1)

pipeline = [
    dict(stage="train"),
    dict(stage="export", name="slice", set={"prune.choice": 0.5, "prune.round_to": 8}),
    dict(stage="train", name="distil", model=_distilled, set={"train.epochs": 8}),
    dict(stage="qat"),
]
