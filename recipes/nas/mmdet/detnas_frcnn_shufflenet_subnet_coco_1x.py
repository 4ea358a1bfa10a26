"""Faster R-CNN on a backbone that a search in DetNAS's space found, trained anew. Published by mmrazor: 37.5 mAP.

`fix_subnet` is what the search leaves. Any subnet file of this space may take its place, mmrazor's published
one as well: `--set model.fix_subnet=FILE`.
"""

_base_ = ["./detnas_frcnn_shufflenet_supernet_coco_1x.py"]

model = dict(
    _delete_=True,
    type="mmrazor.sub_model",
    cfg=_base_.model.architecture,
    fix_subnet="work_dirs/detnas_retina_shufflenet_search_coco_1x/fix_subnet.yaml",
)
