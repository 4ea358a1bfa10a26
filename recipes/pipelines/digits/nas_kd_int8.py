"""Search, distil, quantize: a supernet on digits, the best subnet of 60 % of its work, taught by the small CNN.

The search compares candidates on training images; the report holds each stage against the one before.
"""

_base_ = ["../../nas/digits/spos_search.py"]

_distilled = dict(
    type="SingleTeacherDistill",
    # The folder of a stage is what its name in braces stands for.
    architecture=dict(type="razordeploy.sliced:load_model", path="{slice}"),
    teacher=dict(type="razordeploy.models.digits:resnet8", num_classes=10),
    teacher_ckpt="{teacher}/model.pth",
    distiller=dict(
        student_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
        teacher_recorders=dict(fc=dict(type="ModuleOutputs", source="linear")),
        distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=4)),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False)
            )
        ),
    ),
)

pipeline = [
    dict(stage="train", name="teacher", recipe="../../ptq/digits_resnet8.py"),
    dict(stage="train", name="supernet", **{"from": "nothing"}),
    dict(stage="search"),
    dict(stage="export", name="slice"),
    dict(stage="train", name="distil", model=_distilled, set={"train.epochs": 6, "train.lr": 2e-3}),
    dict(stage="ptq", name="int8"),
]
