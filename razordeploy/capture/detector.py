"""Single-stage detectors of mmdet as plain modules: images in, the head's raw maps out; boxes are decoded outside."""

from __future__ import annotations

import copy
import importlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from razordeploy import lazy
from razordeploy.config.recipe import Recipe
from razordeploy.errors import MissingDependency, ModelError, nearest

SCOPE = "mmdet"
_WORKING = "deploy a single-stage detector (RetinaNet, FCOS, GFL, YOLOX, RTMDet, YOLOV3, SSD)"
Decode = Callable[[Sequence[Tensor], Sequence[Mapping[str, Any]]], list[Any]]
"""``decode(outputs, metas)``: the plain module's outputs (N, ...) and each image's metainfo -> mmdet's instances."""


def is_detector(recipe: Recipe) -> bool:
    """Whether the recipe's model is of mmdet."""
    prefix = str(recipe.model.get("type", "")).rpartition(".")[0]
    return SCOPE in (prefix, recipe.model.get("_scope_")) or (
        not prefix and recipe.model.get("_scope_") is None and recipe.config.get("default_scope") == SCOPE
    )


def build_detector(recipe: Recipe) -> nn.Module:
    """Build the detector that ``recipe.model`` names, without the weights that its backbone would download.

    Raises:
        MissingDependency: mmdet or mmcv's operators are not installed.
        ModelError: the name is not registered, building it fails, or it is not of one stage.
    """
    _import()
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    # Makes our own backbones known to mmengine.
    importlib.import_module("razordeploy.registry")
    config = copy.deepcopy(recipe.model)
    config.pop("_scope_", None)
    if config.get("data_preprocessor") is None and recipe.config.get("data_preprocessor") is not None:
        config["data_preprocessor"] = copy.deepcopy(recipe.config["data_preprocessor"])
    name = str(config["type"]).rpartition(".")[2]
    if MODELS.get(name) is None:
        raise ModelError(f"model type '{name}' is not registered in mmdet", hint=nearest(name, MODELS.module_dict))
    _refuse_stages(config, name)
    try:
        with DefaultScope.overwrite_default_scope(SCOPE), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MODELS.build(ConfigDict({**_without_downloads(config), "type": name}))
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())
        raise ModelError(f"model '{name}' cannot be built: {type(error).__name__}: {text}") from error
    if not hasattr(getattr(model, "bbox_head", None), "predict_by_feat"):
        raise ModelError(
            f"model '{name}': expected a detector whose bbox_head decodes its own maps (predict_by_feat), found none",
            hint=_WORKING,
        )
    return model


@dataclass(frozen=True)
class DenseHead:
    """What lies behind a detector's raw maps."""

    decode: Decode
    losses: Callable[[Sequence[Tensor], Sequence[Any]], dict[str, Any]]
    """``losses(outputs, data_samples)``: those of the head, by name."""

    def predictions(self, outputs: Sequence[Tensor], samples: Sequence[Any]) -> list[Any]:
        """The data samples, with what was detected in them."""
        for sample, found in zip(samples, self.decode(outputs, [s.metainfo for s in samples]), strict=True):
            sample.pred_instances = found
        return list(samples)


def make_dense(model: nn.Module, shape: Sequence[int]) -> tuple[nn.Module, nn.Module | None, DenseHead]:
    """Give ``model`` the call ``model(images) -> maps``, in place; take its preprocessor and its decoding out.

    Args:
        model: a single-stage detector, in eval mode.
        shape: (C, H, W) of an image.

    Returns:
        The module, whose outputs are the head's maps in the order the head returns them, one tuple; the data
        preprocessor; and what lies behind such outputs: decoding, non-maximum suppression included, and the losses.

    Raises:
        ModelError: the network does not run on images alone.
    """
    preprocess = model._modules.pop("data_preprocessor", None)
    original: Any = type(model)
    try:
        with torch.no_grad():
            nested = original._forward(model, torch.zeros(1, *shape))
    except Exception as error:
        raise ModelError(
            f"{original.__name__} does not run on images of {tuple(shape)} alone: {type(error).__name__}: {error}"
        ) from error
    leaves, structure = pytree.tree_flatten(nested)
    if not all(isinstance(leaf, Tensor) and leaf.ndim == 4 for leaf in leaves):
        found = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in leaves)
        raise ModelError(f"{original.__name__}: expected maps (N, C, H, W) from its head, got {found}")

    def forward(self: nn.Module, inputs: Tensor) -> Any:
        return tuple(pytree.tree_leaves(original._forward(self, inputs)))

    head: Any = model.bbox_head
    if not hasattr(head, "loss_cls"):
        # mmdet 3.3 asks every head for its loss while it decodes, and that of SSD has none.
        head.loss_cls = None

    def decode(outputs: Sequence[Tensor], metas: Sequence[Mapping[str, Any]]) -> list[Any]:
        with torch.no_grad():
            maps = pytree.tree_unflatten(list(outputs), structure)
            found: list[Any] = head.predict_by_feat(*maps, batch_img_metas=list(metas), rescale=True)
        return found

    def losses(outputs: Sequence[Tensor], samples: Sequence[Any]) -> dict[str, Any]:
        from mmdet.models.utils import unpack_gt_instances

        maps = pytree.tree_unflatten(list(outputs), structure)
        wanted, ignored, metas = unpack_gt_instances(list(samples))
        found: dict[str, Any] = head.loss_by_feat(*maps, wanted, metas, ignored)
        return found

    model.__class__ = type(original.__name__, (original,), {"forward": forward, "__module__": original.__module__})
    return model, preprocess, DenseHead(decode, losses)


def guess_image_shape(recipe: Recipe) -> tuple[int, int, int] | None:
    """(C, H, W) that every image of the test pipeline fits into; None where no pipeline resizes.

    A resize that keeps the ratio turns with the image, so that it takes a square; sides are multiples of 32.
    """
    for key in ("test_dataloader", "val_dataloader"):
        dataset = (recipe.config.get(key) or {}).get("dataset")
        for step in (dataset or {}).get("pipeline") or ():
            scale = step.get("scale") if isinstance(step, Mapping) else None
            if not isinstance(scale, list | tuple) or len(scale) != 2:
                continue
            width, height = (max(scale),) * 2 if step.get("keep_ratio") else scale
            return 3, -(-int(height) // 32) * 32, -(-int(width) // 32) * 32
    return None


def _import() -> None:
    hint = "bash tools/detection_env.sh makes an environment with both"
    for package in ("mmcv", "mmdet"):
        if not lazy.available(package):
            raise MissingDependency(f"'{package}' is not installed", hint=hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lazy.require("mmcv.ops", extra="mmdet")
            lazy.require("mmdet.models", extra="mmdet")
    except (AssertionError, ImportError) as error:
        raise MissingDependency(f"mmdet does not work with what is installed: {error}", hint=hint) from error


def _refuse_stages(config: Mapping[str, Any], name: str) -> None:
    if "roi_head" in config:
        raise ModelError(
            f"{name} has two stages: what its second one computes on is chosen by the first one's boxes in each image, "
            "which no static graph holds",
            hint=f"{_WORKING}, or wrap the backbone and neck in a factory of your own",
        )
    if {"encoder", "decoder", "num_queries"} & config.keys() or "DETR" in name.upper():
        raise ModelError(
            f"{name} is a transformer over queries: its forward pass needs each image's own mask and shape beside the "
            "pixels, which an engine of one input does not get",
            hint=_WORKING,
        )


def _without_downloads(value: Any) -> Any:
    """The config without ``init_cfg`` of files on the net: a recipe's own checkpoint holds the backbone too."""
    if isinstance(value, Mapping):
        return {key: _without_downloads(inner) for key, inner in value.items() if not _downloads(key, inner)}
    if isinstance(value, list | tuple):
        return type(value)(_without_downloads(inner) for inner in value)
    return value


def _downloads(key: str, value: Any) -> bool:
    source = str(value.get("checkpoint", "")) if isinstance(value, Mapping) else ""
    return key == "init_cfg" and (":" in source or source.startswith("open-mmlab"))
