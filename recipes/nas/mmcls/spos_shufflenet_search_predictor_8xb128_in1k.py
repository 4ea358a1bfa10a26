"""The search of `spos_shufflenet_search_8xb128_in1k.py` by a Gaussian process that 20 subnets are evaluated for."""

_base_ = ["./spos_shufflenet_search_8xb128_in1k.py"]

search = dict(predictor=dict(type="GaussProcessHandler", train_samples=20, verify=10))
