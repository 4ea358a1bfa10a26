"""A single-path supernet of 2,304 residual networks on CIFAR-10.

Three epochs are what two CPU cores do in minutes: `--set train.epochs=N` trains longer.
"""

model = dict(
    type="SPOS",
    architecture=dict(type="razordeploy.compress.nas.supernets.cifar:resnet_cifar"),
    mutator=dict(type="NasMutator"),
)
data = dict(type="cifar10_npz")
train = dict(epochs=3, batch_size=128, lr=0.1, optimizer="sgd", shift=4, flip=True)
checkpoint = "work_dirs/cifar10_spos/supernet.pth"

calibration = dict(num_samples=512)
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(3, 32, 32)], max_drop=1.0)
