"""Once-for-All on scikit-learn's digits: small kernels are learned maps of large ones, every block chooses."""

_base_ = ["bignas_supernet.py"]
model = dict(architecture=dict(conv_type="OFAConv2d", fine_grained=True, resolutions=()))
checkpoint = "work_dirs/digits_ofa/supernet.pth"
