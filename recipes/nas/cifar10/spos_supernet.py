"""A single-path supernet of 15,625 subnets on CIFAR-10."""

model = dict(
    type="SPOS",
    architecture=dict(type="razordeploy.compress.nas.supernets.digits:spos_digits", width=24, in_channels=3),
    mutator=dict(type="NasMutator"),
)
data = dict(type="cifar10_npz")
train = dict(epochs=20, batch_size=128, lr=4e-3, optimizer="adamw", shift=4, flip=True)
checkpoint = "work_dirs/cifar10_spos/supernet.pth"

calibration = dict(num_samples=512)
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(3, 32, 32)], max_drop=1.0)
