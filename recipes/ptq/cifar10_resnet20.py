"""ResNet-20 on CIFAR-10 with its public weights; calibrated on 512 training images.

Float top-1 on the 10,000 test images of the JPEG archive: 81.03.
"""

model = dict(type="razordeploy.models.cifar:resnet20", num_classes=10)
data = dict(type="cifar10_npz")
checkpoint = "{{$RAZORDEPLOY_DATA:../shared/data}}/checkpoints/resnet20-12fca82f.th"
# The published weights were saved from a DataParallel wrapper.
key_mapping = {r"^module\.": ""}

calibration = dict(num_samples=512)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(3, 32, 32)], max_drop=1.0)
