"""BigNAS on scikit-learn's digits: elastic widths, depths, kernels, expansions and input sizes, trained in one stage.

Its subnets are deployed as they are, once their batch norms are recalibrated; a search does so by itself.
"""

_logits = dict(out=dict(type="ModuleOutputs", source="head.fc"))
model = dict(
    type="BigNAS",
    architecture=dict(type="razordeploy.compress.nas.supernets.digits:bignas_digits", resolutions=(6, 8)),
    mutator=dict(type="NasMutator"),
    strategy="sandwich4",
    drop_path_rate=0.0,
    distiller=dict(
        teacher_recorders=_logits,
        student_recorders=_logits,
        distill_losses=dict(loss_kl=dict(type="KLDivergence", tau=1)),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(recorder="out", from_student=True), preds_T=dict(recorder="out", from_student=False)
            )
        ),
    ),
)
data = dict(type="digits")
train = dict(epochs=12, batch_size=64, lr=4e-3, optimizer="adamw", shift=1, threads=1)
checkpoint = "work_dirs/digits_bignas/supernet.pth"

deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
