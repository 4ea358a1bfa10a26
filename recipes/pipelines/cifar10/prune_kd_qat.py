"""ResNet-20 on CIFAR-10: half its channels, taught by the public model, trained on int8 grids.

Four epochs on a fifth of the training images, and 2,000 test images, are what a CPU core does in ten minutes:
`--set data.samples=None train.epochs=N` for more.
"""

_base_ = ["../../ptq/cifar10_resnet20.py"]

data = dict(samples=dict(train=10000, test=2000))

train = dict(epochs=4, batch_size=128, lr=0.05, optimizer="sgd", shift=4, flip=True)
qat = dict(epochs=1, batch_size=128, lr=1e-3, optimizer="sgd", shift=4, flip=True)
# The logits of any plain classifier. The sliced network is a graph, in which no module is called by its name.
_fc = dict(type="FunctionInputs", source="razordeploy.compress.algorithm.plain.classification_outputs")
_taught = dict(
    type="SingleTeacherDistill",
    # The folder of a stage is what its name in braces stands for.
    architecture=dict(type="razordeploy.sliced:load_model", path="{slice}"),
    teacher=dict(type="razordeploy.models.cifar:resnet20", num_classes=10),
    teacher_ckpt="{{$RAZORDEPLOY_DATA:../shared/data}}/checkpoints/resnet20-12fca82f.th",
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
    dict(stage="export", name="slice", set={"prune.choice": 0.5, "prune.round_to": 8}),
    dict(stage="train", name="distil", model=_taught),
    dict(stage="qat"),
]
