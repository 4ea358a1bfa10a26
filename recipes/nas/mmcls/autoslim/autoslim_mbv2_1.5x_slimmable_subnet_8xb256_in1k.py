"""The three subnets that greedy slimming has found, trained together as one slimmable network."""

_base_ = ["../../_base_/autoslim_mbv2.py"]

_found = "work_dirs/autoslim_mbv2_1.5x_search_8xb256_in1k/"
model = dict(
    type="SlimmableNetwork",
    architecture=_base_.supernet,
    channel_cfg_paths=[_found + "FLOPS_200M.yaml", _found + "FLOPS_300M.yaml", _found + "FLOPS_500M.yaml"],
    mutator=dict(
        type="SlimmableChannelMutator",
        channel_unit_cfg=dict(type="SlimmableChannelUnit"),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 224, 224)),
    ),
)
model_wrapper_cfg = dict(type="mmrazor.SlimmableNetworkDDP", broadcast_buffers=False, find_unused_parameters=True)
val_cfg = dict(type="mmrazor.SlimmableValLoop")
