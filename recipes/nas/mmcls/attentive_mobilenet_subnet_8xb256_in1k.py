"""A network of AttentiveNAS's space (arXiv 2011.09011).

Published by mmrazor, converted weights: A0 77.19, A6 80.81. The weights are those that the search leaves beside its
subnet: `--checkpoint work_dirs/attentive_mobilenet_search_8xb128_in1k/subnet.pth`. Any subnet file of this space may
take the place of `fix_subnet`, mmrazor's published ones as well.
"""

_base_ = ["./attentive_mobilenet_supernet_32xb64_in1k.py"]

model = dict(
    _delete_=True,
    type="mmrazor.sub_model",
    cfg=_base_.model.architecture,
    fix_subnet="work_dirs/attentive_mobilenet_search_8xb128_in1k/fix_subnet.yaml",
)
train_dataloader = dict(batch_size=256)
val_dataloader = dict(batch_size=256)
model_wrapper_cfg = None
val_cfg = dict(_delete_=True)
