"""AutoFormer on scikit-learn's digits: one elastic transformer a step, narrower layers are parts of wider ones.

Top-1 on the 355 held-out images: 96.62 for the largest subnet, 96.06 for the smallest.
"""

model = dict(
    type="Autoformer",
    architecture=dict(type="razordeploy.compress.nas.supernets.digits:autoformer_digits"),
    mutator=dict(type="NasMutator"),
)
data = dict(type="digits")
train = dict(epochs=60, batch_size=64, lr=4e-3, optimizer="adamw", threads=1)
checkpoint = "work_dirs/digits_autoformer/supernet.pth"

deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
