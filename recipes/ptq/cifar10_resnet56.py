"""ResNet-56 on CIFAR-10 with its public weights; calibrated on 512 training images.

Float top-1 on the 10,000 test images of the JPEG archive: 83.20.
"""

model = dict(type="razordeploy.models.cifar:resnet56", num_classes=10)
data = dict(type="cifar10_npz")
checkpoint = "{{$RAZORDEPLOY_DATA:../shared/data}}/checkpoints/resnet56-4bfd9763.th"
# The published weights were saved from a DataParallel wrapper.
key_mapping = {r"^module\.": ""}

calibration = dict(num_samples=512)
# A range that minimises the squared error: 56 layers of plain min-max lose 0.2 points.
quantize = dict(global_qconfig=dict(a_observer=dict(type="MSEObserver")))
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(3, 32, 32)], max_drop=1.0)
