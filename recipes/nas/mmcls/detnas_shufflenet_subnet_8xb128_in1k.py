"""The backbone that a search on a detector found, trained on ImageNet before the detector is."""

_base_ = ["./spos_shufflenet_subnet_8xb128_in1k.py"]

model = dict(fix_subnet="work_dirs/detnas_retina_shufflenet_search_coco_1x/fix_subnet.yaml")
