"""The network that DSNAS decides on (arXiv 2002.09128), trained anew.

Published by mmrazor: 73.56 at 0.299 GFLOPs. `fix_subnet` is what `train` with `dsnas_supernet_8xb128_in1k.py` leaves.
Any subnet file of this space may take its place, mmrazor's published ones as well: `--set model.fix_subnet=FILE`.
"""

_base_ = ["./spos_shufflenet_supernet_8xb128_in1k.py"]

model = dict(
    _delete_=True,
    type="mmrazor.sub_model",
    cfg=_base_.model.architecture,
    fix_subnet="work_dirs/dsnas_supernet_8xb128_in1k/fix_subnet.yaml",
)
