"""Negatives for contrastive distillation, drawn with each image."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from razordeploy.data.mm import registry_scope
from razordeploy.errors import DataError, RecipeError

_CONTRAST = ("sample_idx", "contrast_sample_idxs")
_META = ("sample_idx", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


class CRDDataset(Dataset[Any]):
    """An OpenMMLab classification data set whose samples know their index and those of their negatives.

    Contrastive Representation Distillation (Tian et al. 2020, arXiv 1910.10699): negatives are images of other classes.
    Each data sample gets ``sample_idx`` and ``contrast_sample_idxs`` (neg_num + 1,), the positive first.

    Args:
        dataset: the data set, or its config.
        neg_num: negatives per sample.
        sample_mode: ``exact``: the positive is the image itself; ``relax``: any image of its class.
        percent: share of the other classes' images that is drawn from, 0 to 1.

    Raises:
        RecipeError: a value out of range.
        DataError: the data set cannot tell its labels, or has one class.
    """

    def __init__(self, dataset: Any, neg_num: int = 16384, sample_mode: str = "exact", percent: float = 1.0) -> None:
        if sample_mode not in ("exact", "relax") or neg_num < 1 or not 0 < percent <= 1:
            raise RecipeError(
                "CRDDataset: expected neg_num of 1 or more, sample_mode 'exact' or 'relax' and percent in (0, 1], got "
                f"{neg_num}, {sample_mode!r} and {percent}"
            )
        self.dataset = _built(dataset)
        self.neg_num = neg_num
        self.sample_mode = sample_mode
        labels = self._labels()
        classes = np.unique(labels)
        if len(classes) < 2:
            raise DataError(f"CRDDataset: expected two classes or more to contrast, got {len(classes)}")
        self.labels = labels
        self.positives = {int(label): np.flatnonzero(labels == label) for label in classes}
        self.negatives = {int(label): _share(np.flatnonzero(labels != label), percent) for label in classes}

    @property
    def metainfo(self) -> Any:
        """The data set's own."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        """Load the annotations; mmengine calls this."""
        self.dataset.full_init()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        label = int(self.labels[index])
        among = self.negatives[label]
        positive = index if self.sample_mode == "exact" else int(np.random.choice(self.positives[label]))
        drawn = np.random.choice(among, self.neg_num, replace=self.neg_num > len(among))
        contrast = np.concatenate([[positive], drawn]).astype(np.int64)
        item["data_samples"].set_metainfo({"sample_idx": index, "contrast_sample_idxs": contrast})
        return item

    def _labels(self) -> Any:
        if hasattr(self.dataset, "get_gt_labels"):
            return np.asarray(self.dataset.get_gt_labels())
        if hasattr(self.dataset, "get_data_info"):
            return np.asarray([self.dataset.get_data_info(i)["gt_label"] for i in range(len(self.dataset))])
        raise DataError(f"CRDDataset: {type(self.dataset).__name__} cannot tell its labels")


class PackCRDClsInputs:
    """Packs an image and its label as mmcls' or mmpretrain's own step does, with what contrast needs beside them.

    Args:
        meta_keys: kept with the sample, besides ``sample_idx`` and ``contrast_sample_idxs``.
    """

    def __init__(self, meta_keys: Sequence[str] = _META) -> None:
        self.meta_keys = (*dict.fromkeys((*meta_keys, *_CONTRAST)),)
        self._pack: Any = None

    def __call__(self, results: dict[str, Any]) -> Any:
        """``dict(img=(H, W, C), gt_label=..., ...)`` -> ``dict(inputs=(C, H, W), data_samples=...)``."""
        if self._pack is None:
            self._pack = self._packer()
        return self._pack(results)

    def _packer(self) -> Any:
        scope = "mmcls" if importlib.util.find_spec("mmcls") else "mmpretrain"
        name = {"mmcls": "PackClsInputs", "mmpretrain": "PackInputs"}[scope]
        with registry_scope(scope):
            from mmengine.registry import TRANSFORMS as REGISTRY

            return REGISTRY.build({"type": name, "meta_keys": self.meta_keys})


def _built(dataset: Any) -> Any:
    if not isinstance(dataset, Mapping):
        return dataset
    from mmengine.registry import DATASETS

    return DATASETS.build(dict(dataset))


def _share(indices: Any, percent: float) -> Any:
    if percent == 1:
        return indices
    kept = max(1, round(percent * len(indices)))
    return np.random.permutation(indices)[:kept]


TRANSFORMS: dict[str, type] = {"PackCRDClsInputs": PackCRDClsInputs}
"""The transform that a data pipeline may name."""
