"""FitNets on scikit-learn's digits in the forerunner's words: pairs of modules, each with its connector and losses.

`razordeploy train ptq/digits_resnet8.py` makes the teacher.
"""

_regressor = dict(type="ConvModuleConnector", in_channel=32, out_channel=64, norm_cfg=dict(type="BN"), act_cfg=None)
model = dict(
    type="TeacherStudentDistillation",
    student=dict(type="razordeploy.models.digits:resnet8", width=8),
    teacher=dict(type="razordeploy.models.digits:resnet8", width=16),
    teacher_ckpt="work_dirs/digits_resnet8/float.pth",
    components=[
        dict(
            student_module="layer3",
            teacher_module="layer3",
            connector=_regressor,
            losses=[dict(type="L2Loss", name="hint", loss_weight=10)],
        ),
        dict(
            student_module="linear",
            teacher_module="linear",
            losses=[dict(type="KLDivergence", name="soft", tau=4, loss_weight=16)],
        ),
    ],
)
data = dict(type="digits")
train = dict(epochs=12, batch_size=64, lr=4e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_fitnet_resnet8/student.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
