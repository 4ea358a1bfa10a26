"""The network of the cells that `razordeploy train nas/digits/darts_supernet.py` arrived at, wider, trained anew."""

model = dict(type="razordeploy.compress.nas.supernets.digits:darts_digits", base_channels=8)
subnet = "work_dirs/digits_darts/fix_subnet.yaml"
data = dict(type="digits")
train = dict(epochs=20, batch_size=64, lr=8e-3, optimizer="adamw", threads=1)
checkpoint = "work_dirs/digits_darts_subnet/float.pth"

calibration = dict(num_samples=300)
quantize = dict()
deploy = dict(backends=["openvino", "onnxruntime"], input_shapes=[(1, 8, 8)], max_drop=1.0)
