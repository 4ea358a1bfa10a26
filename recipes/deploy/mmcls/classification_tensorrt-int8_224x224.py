"""Classifiers of mmcls, 224 x 224, to int8 on tensorrt by mmdeploy's tools/deploy.py."""

_base_ = ["../_base_/int8.py"]

codebase_config = dict(type="mmcls", task="Classification")
_shape = [1, 3, 224, 224]
backend_config = dict(
    type="tensorrt",
    model_inputs=[dict(input_shapes=dict(input=dict(min_shape=_shape, opt_shape=_shape, max_shape=[32, *_shape[1:]])))],
)
