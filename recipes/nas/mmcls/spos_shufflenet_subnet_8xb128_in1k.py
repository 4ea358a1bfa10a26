"""The network of SPOS's space over ShuffleNetV2 that a search found (arXiv 1904.00420), trained anew.

Published by mmrazor: 73.87 at 0.33 GFLOPs. `fix_subnet` is what the search leaves. Any subnet file of this space may
take its place, mmrazor's published ones as well: `--set model.fix_subnet=FILE`.
"""

_base_ = ["./spos_shufflenet_supernet_8xb128_in1k.py"]

model = dict(
    _delete_=True,
    type="mmrazor.sub_model",
    cfg=_base_.model.architecture,
    fix_subnet="work_dirs/spos_shufflenet_search_8xb128_in1k/fix_subnet.yaml",
)
