"""A subnet that `dmcp_resnet50_supernet_32xb64.py` has drawn, trained from scratch."""

_base_ = ["../../_base_/dmcp_subnet.py"]

model = dict(
    cfg=dict(cfg_path="mmcls::resnet/resnet50_8xb32_in1k.py"),
    fix_subnet="work_dirs/dmcp_resnet50_supernet_32xb64/model_sample/expected_ch.yaml",
)
