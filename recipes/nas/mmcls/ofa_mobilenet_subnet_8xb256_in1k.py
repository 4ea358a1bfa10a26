"""A network of Once-for-All's space (arXiv 1908.09791).

Published by mmrazor, converted weights: 70.3 and 72.6. The weights are those that the search leaves beside its
subnet: `--checkpoint work_dirs/ofa_mobilenet_search_8xb128_in1k/subnet.pth`. Any subnet file of this space may take
the place of `fix_subnet`, mmrazor's published ones as well.
"""

_base_ = ["./ofa_mobilenet_supernet_32xb64_in1k.py"]

model = dict(
    _delete_=True,
    type="mmrazor.sub_model",
    cfg=_base_.model.architecture,
    fix_subnet="work_dirs/ofa_mobilenet_search_8xb128_in1k/fix_subnet.yaml",
)
train_dataloader = dict(batch_size=256)
val_dataloader = dict(batch_size=256)
model_wrapper_cfg = None
val_cfg = dict(_delete_=True)
