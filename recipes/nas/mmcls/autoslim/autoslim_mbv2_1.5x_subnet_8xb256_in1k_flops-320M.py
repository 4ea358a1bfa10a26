"""One subnet of AutoSlim, trained from scratch. Published by mmrazor for its own of 320M: top-1 72.73."""

_base_ = ["../../_base_/autoslim_mbv2.py"]

model = dict(
    type="sub_model",
    cfg=_base_.supernet,
    fix_subnet="work_dirs/autoslim_mbv2_1.5x_search_8xb256_in1k/FLOPS_300M.yaml",
)
