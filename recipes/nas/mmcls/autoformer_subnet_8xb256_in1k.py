"""A transformer of AutoFormer's base space (arXiv 2107.00651).

Published by mmrazor: 82.47 at 10.57 GFLOPs. The weights are those that the search leaves beside its subnet:
`--checkpoint work_dirs/autoformer_search_8xb128_in1k/subnet.pth`. Any subnet file of this space may take the place of
`fix_subnet`, mmrazor's published ones as well. Its own names the algorithm too: `--set model.fix_subnet=FILE
model.extra_prefix=architecture.`
"""

_base_ = ["./autoformer_supernet_32xb256_in1k.py"]

model = dict(
    _delete_=True,
    type="mmrazor.sub_model",
    cfg=_base_.model.architecture,
    fix_subnet="work_dirs/autoformer_search_8xb128_in1k/fix_subnet.yaml",
)
train_dataloader = dict(batch_size=256)
val_dataloader = dict(batch_size=256)
