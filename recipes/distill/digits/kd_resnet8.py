"""KD on scikit-learn's digits: a network of 8 channels learns from one of 16; trains in seconds, deploys.

`razordeploy train ptq/digits_resnet8.py` makes the teacher.
"""

_fc = dict(type="ModuleOutputs", source="linear")
model = dict(
    type="SingleTeacherDistill",
    architecture=dict(type="razordeploy.models.digits:resnet8", width=8),
    teacher=dict(type="razordeploy.models.digits:resnet8", width=16),
    teacher_ckpt="work_dirs/digits_resnet8/float.pth",
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
data = dict(type="digits")
train = dict(epochs=12, batch_size=64, lr=4e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_kd_resnet8/student.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
