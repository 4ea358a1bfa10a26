"""DetNAS's supernet on ImageNet, before it is trained as a detector's backbone: that of SPOS."""

_base_ = ["./spos_shufflenet_supernet_8xb128_in1k.py"]
