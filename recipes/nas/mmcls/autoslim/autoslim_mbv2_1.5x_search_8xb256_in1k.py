"""Greedy slimming of the supernet that `autoslim_mbv2_1.5x_supernet_8xb256_in1k.py` has trained."""

_base_ = ["./autoslim_mbv2_1.5x_supernet_8xb256_in1k.py"]

load_from = "work_dirs/autoslim_mbv2_1.5x_supernet_8xb256_in1k/epoch_50.pth"
train_cfg = dict(
    _delete_=True,
    type="mmrazor.AutoSlimGreedySearchLoop",
    dataloader={{_base_.val_dataloader}},
    evaluator={{_base_.val_evaluator}},
    target_flops=(500.0, 300.0, 200.0),
)
param_scheduler = None
val_cfg = None
val_dataloader = None
val_evaluator = None
