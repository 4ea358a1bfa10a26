"""Search, distil, quantize on CIFAR-10: the best subnet within 60 % of the largest one's int8 latency.

About fifteen minutes of CPU on two cores: three epochs of the supernet, 60 candidates on 1,000 training images, two
epochs with the public ResNet-20 as teacher. The report holds that model's engines beside those of the subnet.
"""

_base_ = ["../../nas/cifar10/spos_search.py"]

_public = "{{$RAZORDEPLOY_DATA:../shared/data}}/checkpoints/resnet20-12fca82f.th"
_distilled = dict(
    type="SingleTeacherDistill",
    # The folder of a stage is what its name in braces stands for.
    architecture=dict(type="razordeploy.sliced:load_model", path="{slice}"),
    teacher=dict(type="razordeploy.models.cifar:resnet20", num_classes=10),
    teacher_ckpt=_public,
    teacher_key_mapping={r"^module\.": ""},
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
    dict(stage="ptq", name="public", recipe="../../ptq/cifar10_resnet20.py"),
    dict(stage="train", name="supernet", **{"from": "nothing"}),
    dict(stage="search"),
    dict(stage="export", name="slice"),
    dict(stage="train", name="distil", model=_distilled, set={"train.epochs": 2, "train.lr": 0.05}),
    dict(stage="ptq", name="int8"),
]
