"""Search, distil, quantize on CIFAR-10: the best subnet within 60 % of the largest one's int8 latency.

Some ten minutes of one CPU core: 10,000 training images, eight epochs of the supernet and ten with the public
ResNet-20 as teacher, 16 candidates on 1,000 training images, 2,000 test images. The report holds the public model
beside the subnet. `--set data.samples=None train.epochs=N` takes all images, and longer.
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
    dict(
        stage="ptq",
        name="public",
        recipe="../../ptq/cifar10_resnet20.py",
        backends="openvino",
        set={"data.samples": dict(test=2000)},
    ),
    dict(stage="train", name="supernet", **{"from": "nothing"}),
    dict(
        stage="search",
        set={
            "search.max_epochs": 2,
            "search.num_candidates": 8,
            "search.num_mutation": 4,
            "search.num_crossover": 4,
            "search.top_k": 4,
        },
    ),
    dict(stage="export", name="slice"),
    dict(stage="train", name="distil", model=_distilled, set={"train.epochs": 10, "train.lr": 0.1}),
    dict(stage="ptq", name="int8"),
]
