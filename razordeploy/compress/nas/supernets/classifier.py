"""An image classifier whose input size and head follow the search, in mmengine's form."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseModel
from torch import Tensor, nn

from razordeploy.compress.algorithm.build import build_foreign, construct, split_type
from razordeploy.compress.nas.supernets.gml_space import parse_entry
from razordeploy.compress.nas.supernets.layers import follow
from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.dynamic_ops.resizer import DynamicInputResizer
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.value import OneShotMutableValue

_SHAPE = "input_shape"
"""Alias of the input size."""


class SearchableImageClassifier(BaseModel):
    """Resizer, backbone, neck and head.

    Args:
        backbone: config; names of mmcls without a scope are understood.
        neck: config; None: there is none.
        head: config.
        data_preprocessor: config; images by default as of ``mmcls.ClsDataPreprocessor``.
        train_cfg: ``dict(augments=[...])`` mixes images, as of mmcls.
        init_cfg: mmengine's initialisation.
        input_resizer_cfg: ``dict(input_resizer=dict(type='DynamicInputResizer'), mutable_shape=dict(type=
            'OneShotMutableValue', value_list=[[192, 192], ...]))``, or ``dict(input_sizes=[[192, 192], ...])``.
        resize_process: GML's: ``dict(type='ResizeSlice', resolution=dict(type='Int', lower=192, upper=289, step=32))``.
        connect_head: ``dict(connect_with_backbone="backbone.last_mutable")``: a method of the head and the mutable it
            is given; GML's ``dict(in_channels='backbone.feat_dim')`` makes the head's linear layer elastic.
        pretrained: weights that ``init_weights()`` loads.

    Raises:
        RecipeError: a part is unknown, or ``connect_head`` leads nowhere.
    """

    def __init__(
        self,
        backbone: Any,
        neck: Any = None,
        head: Any = None,
        data_preprocessor: Any = None,
        train_cfg: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
        input_resizer_cfg: Mapping[str, Any] | None = None,
        resize_process: Mapping[str, Any] | None = None,
        connect_head: Mapping[str, str] | None = None,
        pretrained: str | None = None,
    ) -> None:
        if pretrained is not None:
            init_cfg = {"type": "Pretrained", "checkpoint": pretrained}
        super().__init__(data_preprocessor=_preprocessor(data_preprocessor, train_cfg), init_cfg=init_cfg)
        self.backbone = _part(backbone, "backbone")
        self.neck = None if neck is None else _part(neck, "neck")
        self.head = None if head is None else _part(head, "head")
        self.input_resizer = _resizer(input_resizer_cfg, resize_process)
        for name, path in (connect_head or {}).items():
            self._connect(name, path)

    def extract_feat(self, inputs: Tensor) -> Any:
        """Images (N, C, H, W) -> features, through the neck."""
        if self.input_resizer is not None:
            inputs = self.input_resizer(inputs)
        feats = self.backbone(inputs)
        return feats if self.neck is None else self.neck(feats)

    def forward(self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor", targets: Any = None) -> Any:
        """``tensor``: logits; ``loss``: losses by name; ``predict``: data samples, or class indices without them.

        Raises:
            ModelError: another mode.
        """
        samples = targets if data_samples is None else data_samples
        head: Any = self.head
        feats = self.extract_feat(inputs)
        if mode == "tensor":
            return feats if head is None else head(feats)
        if mode == "loss":
            return head.loss(feats, samples)
        if mode == "predict":
            return head.predict(feats, samples)
        raise ModelError(f"expected mode 'tensor', 'loss' or 'predict', got {mode!r}")

    def _connect(self, name: str, path: str) -> None:
        mutable: Any = self
        for part in path.split("."):
            mutable = getattr(mutable, part, None)
        if not isinstance(mutable, BaseMutable):
            raise RecipeError(f"connect_head: '{path}' is no mutable of {type(self).__name__}")
        connect = getattr(self.head, name, None)
        if callable(connect):
            connect(mutable)
            return
        linear = getattr(self.head, "fc", None)
        if name != "in_channels" or not isinstance(linear, nn.Linear):
            raise RecipeError(
                f"connect_head: {type(self.head).__name__} has no '{name}'",
                hint="connect_head=dict(connect_with_backbone=...), with head=dict(type='DynamicLinearClsHead')",
            )
        if not isinstance(linear, DynamicLinear):
            linear = DynamicLinear.convert_in_place(linear)
        follow(linear, inputs=mutable)


def _part(config: Any, noun: str) -> nn.Module:
    if isinstance(config, nn.Module):
        return config
    from razordeploy.registry import MODELS

    name, keywords = split_type(copy.deepcopy(config), noun)
    found = MODELS.get(f"razordeploy.{name}") if "." not in name else None
    if found is not None:
        built: nn.Module = construct(found, keywords, noun)
        return built
    foreign: nn.Module = build_foreign(name if "." in name else f"mmcls.{name}", keywords, noun)
    return foreign


def _preprocessor(config: Any, train_cfg: Mapping[str, Any] | None) -> Any:
    if isinstance(config, nn.Module):
        return config
    if config is None and not train_cfg:
        return None
    keywords = {"type": "mmcls.ClsDataPreprocessor", **dict(config or {})}
    if train_cfg and train_cfg.get("augments"):
        keywords["batch_augments"] = dict(train_cfg)
    name, keywords = split_type(keywords, "data_preprocessor")
    return build_foreign(name if "." in name else f"mmcls.{name}", keywords, "data_preprocessor")


def _resizer(config: Mapping[str, Any] | None, process: Mapping[str, Any] | None) -> DynamicInputResizer | None:
    if config and process:
        raise RecipeError("input_resizer_cfg and resize_process say the same: give one")
    alias = _SHAPE
    if process:
        values, key = parse_entry(process.get("resolution"), "resize_process.resolution")
        sizes: list[Any] = [[side, side] for side in values]
        default, alias, options = None, key or _SHAPE, {}
    elif config:
        shape = dict(config.get("mutable_shape") or {})
        sizes = list(config.get("input_sizes") or shape.get("value_list") or ())
        default = shape.get("default_value")
        options = {k: v for k, v in dict(config.get("input_resizer") or {}).items() if k not in ("type", "_scope_")}
    else:
        return None
    if not sizes:
        raise RecipeError("input_resizer_cfg: expected input_sizes, or mutable_shape with a value_list")
    resizer = DynamicInputResizer(**options)
    resizer.register_mutable_attr("shape", OneShotMutableValue(sizes, default, alias=alias))
    return resizer


CLASSIFIERS: dict[str, type[nn.Module]] = {
    # GML's name.
    "ImageClassifierSearch": SearchableImageClassifier,
    "SearchableImageClassifier": SearchableImageClassifier,
}
"""The classifiers that a config may name."""
