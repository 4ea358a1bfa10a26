"""Classifiers of mmpretrain, 224 x 224, to int8 on onnxruntime by mmdeploy's tools/deploy.py."""

_base_ = ["../_base_/int8.py"]

codebase_config = dict(type="mmpretrain", task="Classification")
backend_config = dict(type="onnxruntime")
