"""A single-path supernet of 2,304 residual networks on a fifth of CIFAR-10.

That is what a CPU core trains in minutes: `--set data.samples=None train.epochs=N` takes all of it, and longer.
"""

model = dict(
    type="SPOS",
    architecture=dict(type="razordeploy.compress.nas.supernets.cifar:resnet_cifar"),
    mutator=dict(type="NasMutator"),
)
data = dict(type="cifar10_npz", samples=dict(train=10000, test=2000))
train = dict(epochs=8, batch_size=128, lr=0.1, optimizer="sgd", shift=4, flip=True)
checkpoint = "work_dirs/cifar10_spos/supernet.pth"

calibration = dict(num_samples=512)
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(3, 32, 32)], max_drop=1.0)
