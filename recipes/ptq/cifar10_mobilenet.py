"""A depthwise separable network for CIFAR-10, quantized with one scale for each weight tensor.

Trained as quickly as this, some channels die: their input is 0 for every image, the variance of their depthwise
convolution nearly so, and the folded weight hundreds of times larger than its neighbours'. With one scale a tensor,
which many integer units ask for, the range of the dead channel leaves the living ones a few steps (Nagel et al. 2019).

Float top-1 on the 10,000 test images of the JPEG archive: 70.95.

    razordeploy train ptq/cifar10_mobilenet.py
    razordeploy ptq ptq/cifar10_mobilenet.py --max-drop 0.5 --recover
"""

model = dict(type="razordeploy.models.cifar:mobilenet", num_classes=10)
data = dict(type="cifar10_npz")
train = dict(epochs=3, batch_size=128, lr=0.02, optimizer="adamw", shift=4, flip=True, threads=1)
checkpoint = "work_dirs/cifar10_mobilenet/float.pth"

calibration = dict(num_samples=512)
quantize = dict(global_qconfig=dict(w_qscheme=dict(per_channel=False), w_observer=dict(type="MinMaxObserver")))
qat = dict(epochs=1, batch_size=128, lr=1e-3, samples=10_000, shift=4, flip=True, threads=1)
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(3, 32, 32)], max_drop=1.0)
