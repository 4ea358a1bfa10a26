"""The network of SPOS's space over MobileNetV2 that a search found, trained anew.

Published by mmrazor: 75.98 at 0.49 GFLOPs. `fix_subnet` is what the search leaves. Any subnet file of this space may
take its place, mmrazor's published ones as well: `--set model.fix_subnet=FILE`.
"""

_base_ = ["./spos_mobilenet_supernet_8xb128_in1k.py"]

model = dict(
    _delete_=True,
    type="mmrazor.sub_model",
    cfg=_base_.model.architecture,
    fix_subnet="work_dirs/spos_mobilenet_search_8xb128_in1k/fix_subnet.yaml",
)
