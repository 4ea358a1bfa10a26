"""Negatives of other classes with each image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mmengine.structures import BaseDataElement

import razordeploy.registry  # noqa: F401  (makes the scope known)
from razordeploy.compress.distill.crd_dataset import CRDDataset
from razordeploy.errors import DataError, RecipeError

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0])


class Plain:
    metainfo = {"classes": ("a", "b", "c")}

    def __init__(self, labels: Any = LABELS) -> None:
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def get_gt_labels(self) -> Any:
        return self.labels

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"inputs": index, "data_samples": BaseDataElement()}


@pytest.mark.parametrize(("mode", "negatives"), [("exact", 4), ("relax", 4), ("exact", 50)])
def test_the_positive_comes_first_and_negatives_are_of_other_classes(mode, negatives):
    np.random.seed(0)
    data = CRDDataset(Plain(), neg_num=negatives, sample_mode=mode)
    assert len(data) == 10 and data.metainfo is Plain.metainfo
    positives = set()
    for _ in range(20):
        for index in range(10):
            sample = data[index]["data_samples"]
            first, *rest = sample.contrast_sample_idxs.tolist()
            assert sample.sample_idx == index and len(rest) == negatives
            assert LABELS[first] == LABELS[index] and (mode == "relax" or first == index)
            assert all(LABELS[i] != LABELS[index] for i in rest)
            # Drawn without repetition where there are enough.
            assert negatives > 6 or len(set(rest)) == negatives
            positives.add((index, first))
    assert len(positives) == (10 if mode == "exact" else 4 * 4 + 2 * 3 * 3)


def test_a_share_of_the_negatives():
    np.random.seed(0)
    data = CRDDataset(Plain(), neg_num=3, percent=0.5)
    drawn = {i for _ in range(50) for i in data[0]["data_samples"].contrast_sample_idxs[1:].tolist()}
    assert len(drawn) == 3


def test_wrong_use():
    for options in ({"neg_num": 0}, {"sample_mode": "exactly"}, {"percent": 0.0}):
        with pytest.raises(RecipeError, match="CRDDataset: expected neg_num of 1 or more"):
            CRDDataset(Plain(), **options)
    with pytest.raises(DataError, match="expected two classes or more to contrast, got 1"):
        CRDDataset(Plain(np.zeros(4)))
    with pytest.raises(DataError, match="list cannot tell its labels"):
        CRDDataset([1, 2])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_packed_with_what_contrast_needs():
    pytest.importorskip("mmcls", reason="needs mmcls")
    from mmengine.registry import TRANSFORMS

    pack = TRANSFORMS.build({"type": "mmrazor.PackCRDClsInputs", "meta_keys": ("img_shape",)})
    contrast = np.array([7, 1, 2])
    results = {"img": np.zeros((4, 5, 3), np.uint8), "gt_label": 2, "sample_idx": 7, "img_shape": (4, 5)}
    packed = pack({**results, "contrast_sample_idxs": contrast})
    sample = packed["data_samples"]
    assert packed["inputs"].shape == (3, 4, 5) and int(sample.gt_label.label) == 2
    assert sample.sample_idx == 7 and sample.img_shape == (4, 5)
    assert np.array_equal(sample.contrast_sample_idxs, contrast)
    # The data set draws its own afterwards.
    sample.set_metainfo({"sample_idx": 8, "contrast_sample_idxs": contrast + 1})
    assert sample.sample_idx == 8
