"""ResNet-20 on CIFAR-10: the public float model, its int8 engine, and int8 engines of narrower ones, side by side.

Each narrow model is cut out of the public one by the L1 norm of its filters and trained on with the whole one as its
teacher; the report shows accuracy against latency. Four epochs on a fifth of the training images,
and 2,000 test images, are what a CPU core does in ten minutes: `--set data.samples=None train.epochs=N` for more.
"""

_base_ = ["../../ptq/cifar10_resnet20.py"]

data = dict(samples=dict(train=10000, test=2000))

train = dict(epochs=4, batch_size=128, lr=0.05, optimizer="sgd", shift=4, flip=True)
_public = "{{$RAZORDEPLOY_DATA:../shared/data}}/checkpoints/resnet20-12fca82f.th"
# The logits of any plain classifier. The sliced network is a graph, in which no module is called by its name.
_fc = dict(type="FunctionInputs", source="razordeploy.compress.algorithm.plain.classification_outputs")


def _taught(folder):
    return dict(
        type="SingleTeacherDistill",
        architecture=dict(type="razordeploy.sliced:load_model", path=folder),
        teacher=dict(type="razordeploy.models.cifar:resnet20", num_classes=10),
        teacher_ckpt=_public,
        teacher_key_mapping={r"^module\.": ""},
        distiller=dict(
            student_recorders=dict(fc=_fc),
            teacher_recorders=dict(fc=_fc),
            distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=4)),
            loss_forward_mappings=dict(
                loss_kl=dict(
                    preds_S=dict(recorder="fc", data_idx=0, from_student=True),
                    preds_T=dict(recorder="fc", data_idx=0, from_student=False),
                )
            ),
        ),
    )


pipeline = [
    dict(stage="ptq", name="int8", **{"from": "nothing"}),
    *[
        stage
        for name, share in [("w75", 0.75), ("w50", 0.5), ("w25", 0.25)]
        for stage in (
            dict(stage="export", name=f"{name}_slice", set={"prune.choice": share}, **{"from": "nothing"}),
            dict(stage="train", name=name, model=_taught(f"{{{name}_slice}}")),
            dict(stage="ptq", name=f"{name}_int8"),
        )
    ],
]
