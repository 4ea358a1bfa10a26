"""ResNet-20 on CIFAR-10 with 4-bit weights and activations, first and last layer in 8 bits, scales learned (LSQ).

Simulated: no engine here has 4-bit kernels. Batch norms live until the last epoch but one.
"""

_base_ = ["../ptq/cifar10_resnet20.py"]

_four = dict(w_qscheme=dict(bit=4, per_channel=True), a_qscheme=dict(bit=4))
_eight = dict(w_qscheme=dict(bit=8, per_channel=True), a_qscheme=dict(bit=8))

quantize = dict(
    global_qconfig=dict(**_four, w_observer=dict(type="MSEObserver"), a_observer=dict(type="MSEObserver")),
    input_layer=_eight,
    output_layer=_eight,
)
qat = dict(
    epochs=6,
    batch_size=128,
    lr=0.01,
    optimizer="sgd",
    freeze_bn_begin=5,
    shift=4,
    flip=True,
    threads=1,
    samples=10_000,
)
deploy = dict(backends=["academic"], max_drop=2.0)
