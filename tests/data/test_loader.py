from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from razordeploy.data.base import Source
from razordeploy.data.batch import Batch
from razordeploy.data.loader import batches, from_iterable
from razordeploy.data.sources import build_source
from razordeploy.errors import DataError


class Numbers(Source):
    """Sample i is [i], its class i % 3."""

    def __init__(self, count: int, odd: bool = False) -> None:
        self.count, self.odd = count, odd

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((2 if self.odd and index == 3 else 1,), float(index)), index % 3

    def describe(self) -> str:
        return "numbers"

    def fingerprint(self) -> str:
        return "0"


def drawn(**kwargs: Any) -> list[int]:
    return [int(v) for b in batches(Numbers(10), 3, **kwargs) for v in b.inputs[0][:, 0]]


def test_order_is_kept_and_the_last_batch_is_smaller() -> None:
    assert drawn() == list(range(10))
    assert [len(b) for b in batches(Numbers(10), 3)] == [3, 3, 3, 1]
    assert drawn(limit=4) == [0, 1, 2, 3]
    assert drawn(limit=99) == list(range(10))


def test_a_shuffle_is_decided_by_its_seed_only() -> None:
    torch.manual_seed(1)
    first = drawn(shuffle=True, seed=5)
    torch.manual_seed(2)
    assert drawn(shuffle=True, seed=5) == first
    assert drawn(shuffle=True, seed=6) != first
    assert sorted(first) == list(range(10)) != first
    assert drawn(shuffle=True, seed=5, limit=4) == first[:4]


def test_targets_and_names_go_with_their_samples() -> None:
    for batch in batches(Numbers(10), 4, shuffle=True, seed=3):
        assert batch.target is not None
        values = [int(v) for v in batch.inputs[0][:, 0]]
        assert batch.target.tolist() == [v % 3 for v in values]
        assert list(batch.names) == [str(v) for v in values]


def test_a_seeded_subset_of_digits_holds_every_class() -> None:
    source = build_source({"type": "digits"}, "train")
    counts = torch.bincount(torch.cat([b.target for b in batches(source, 50, limit=300, shuffle=True)]), minlength=10)
    assert int(counts.sum()) == 300 and int(counts.min()) >= 15


def test_wrong_sizes_and_empty_sources_are_refused() -> None:
    with pytest.raises(DataError, match="found none in numbers"):
        next(batches(Numbers(0), 3))
    with pytest.raises(DataError, match="at least 1, got 0"):
        next(batches(Numbers(3), 0))
    with pytest.raises(DataError, match="at least 1, got 2 and 0"):
        next(batches(Numbers(3), 2, limit=0))


def test_samples_of_different_shape_are_named() -> None:
    with pytest.raises(DataError, match=r"\[\(1,\)\] as in 0, got \[\(2,\)\] in 3"):
        list(batches(Numbers(5, odd=True), 5))


X = torch.arange(12.0).reshape(2, 6)
LABELS = torch.tensor([3, 4])
SAMPLES = [SimpleNamespace(gt_label=torch.tensor([3]), img_path="a.jpg"), SimpleNamespace(gt_label=torch.tensor([4]), img_path="b.jpg")]  # fmt: skip # noqa: E501


@pytest.mark.parametrize(
    ("item", "inputs", "target"),
    [
        (X, 1, None),
        (X.numpy(), 1, None),
        ((X, X), 2, None),
        ([X, X, X], 3, None),
        ((X, None), 1, None),
        ((X, LABELS), 1, [3, 4]),
        ((X, LABELS.numpy().astype(np.uint8)), 1, [3, 4]),
        ((X, [3, 4]), 1, [3, 4]),
        (((X, X), LABELS), 2, [3, 4]),
        ({"image": X, "mask": X}, 2, None),
        ({"image": X, "label": LABELS}, 1, [3, 4]),
        (({"image": X}, LABELS), 1, [3, 4]),
        ({"inputs": X, "data_samples": SAMPLES}, 1, [3, 4]),
        ({"inputs": [X[0], X[1]], "data_samples": SAMPLES}, 1, [3, 4]),
        ({"inputs": X}, 1, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_item(item: Any, inputs: int, target: list[int] | None) -> None:
    (batch,) = from_iterable([item])
    assert len(batch.inputs) == inputs
    for x in batch.inputs:
        torch.testing.assert_close(x, X)
    assert (None if batch.target is None else batch.target.tolist()) == target
    if batch.target is not None:
        assert batch.target.dtype == torch.int64


def test_two_arrays_are_two_inputs_when_the_second_is_no_label() -> None:
    (batch,) = from_iterable([(X, torch.tensor([0.5, 0.5]))])
    assert len(batch.inputs) == 2 and batch.target is None


def test_mm_data_samples_of_both_generations_and_their_names() -> None:
    old = [SimpleNamespace(gt_label=SimpleNamespace(label=torch.tensor([n])), img_path=f"{n}.jpg") for n in (3, 4)]
    (batch,) = from_iterable([{"inputs": X, "data_samples": old}])
    assert batch.target is not None and batch.target.tolist() == [3, 4]
    assert batch.names == ("3.jpg", "4.jpg")


@pytest.mark.parametrize("data", [np.zeros((7, 1, 2, 2)), torch.zeros(7, 1, 2, 2)], ids=["numpy", "torch"])
def test_one_long_array_is_cut(data: Any) -> None:
    cut = list(from_iterable(data, batch_size=3))
    assert [tuple(b.inputs[0].shape) for b in cut] == [(3, 1, 2, 2), (3, 1, 2, 2), (1, 1, 2, 2)]
    assert cut[0].inputs[0].dtype == torch.float32


def test_data_sets_loaders_sources_and_generators() -> None:
    pairs = torch.utils.data.TensorDataset(torch.zeros(5, 2), torch.arange(5))
    from_set = [b.target.tolist() for b in from_iterable(pairs, batch_size=2)]
    assert from_set == [[0, 1], [2, 3], [4]]
    assert [len(b) for b in from_iterable(torch.utils.data.DataLoader(pairs, batch_size=3))] == [3, 2]
    assert [len(b) for b in from_iterable(Numbers(5), batch_size=4)] == [4, 1]
    assert [len(b) for b in from_iterable(torch.zeros(n, 2) for n in (1, 2))] == [1, 2]
    batch = Batch((X,), None, ("a",))
    assert list(from_iterable([batch])) == [batch]


def test_dict_inputs_follow_the_models_argument_order() -> None:
    item = {"mask": X + 1, "image": X}
    (batch,) = from_iterable([item], input_names=["image", "mask"])
    torch.testing.assert_close(batch.inputs[0], X)
    with pytest.raises(DataError, match="expected the inputs image, depth, got a dict with mask, image"):
        next(from_iterable([item], input_names=["image", "depth"]))


def test_read_only_and_big_endian_arrays() -> None:
    data = np.ones((2, 3), dtype=">f4")
    data.setflags(write=False)
    (batch,) = from_iterable([data])
    assert batch.inputs[0].dtype == torch.float32 and float(batch.inputs[0].sum()) == 6.0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("data/images", "got str 'data/images'"),
        (None, "got NoneType"),
        (7, "got int"),
        ({"image": X}, "got dict; wrap a single batch in a list"),
        (torch.nn.Identity(), "got Identity"),
        (torch.zeros(5), r"got shape \(5,\)"),
        ([None], "batch 0: .*got None"),
        ([X, "cat.jpg"], "batch 1: .*got str 'cat.jpg'"),
        ([object()], "batch 0: expected a tensor.*got object"),
        ([()], "batch 0: .*empty tuple"),
        ([np.array(["a"])], "numpy array of dtype <U1"),
        ([{"inputs": [torch.zeros(1), torch.zeros(2)]}], "expected samples of one shape"),
        ([{"inputs": []}], "expected samples of one shape to stack, got none"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_wrong_things_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(from_iterable(data))


def test_head_cuts_everything() -> None:
    batch = Batch((X, X), LABELS, ("a", "b")).head(1)
    assert len(batch) == 1 and batch.target is not None and batch.target.tolist() == [3] and batch.names == ("a",)
