from __future__ import annotations

from typing import Any

import pytest
import torch

from razordeploy.data.batch import Batch
from razordeploy.data.check import DataWarning, check_batch, checked
from razordeploy.errors import DataError


def image(*shape: int) -> torch.Tensor:
    return torch.rand(*(shape or (4, 3, 8, 8)), generator=torch.Generator().manual_seed(0)) + 0.1


def test_a_good_batch_passes_without_a_note() -> None:
    assert check_batch(Batch((image(),), torch.arange(4)), 0, [(3, 8, 8)]) == []
    assert check_batch(Batch((image(),), None), 0, [(3, None, -1)]) == []
    assert check_batch(Batch((torch.ones(2, 5, dtype=torch.int64),), None), 0) == []


@pytest.mark.parametrize(
    ("value", "kind"), [(float("nan"), "NaN"), (float("inf"), "infinity"), (float("-inf"), "infinity")]
)
def test_not_finite_values_are_counted_and_placed(value: float, kind: str) -> None:
    x = image()
    x[2, 1, 0, 0] = x[3, 0, 0, 0] = value
    message = rf"batch 7: {kind} in 2 of 768 values, first in sample 2 \(c\.jpg\)"
    with pytest.raises(DataError, match=message):
        check_batch(Batch((x,), None, ("a.jpg", "b.jpg", "c.jpg", "d.jpg")), 7)
    with pytest.raises(DataError, match="first in sample 2;"):
        check_batch(Batch((x,), None), 7)


def test_a_second_input_is_named() -> None:
    with pytest.raises(DataError, match="batch 0, input 1: NaN in 1 of 4 values"):
        check_batch(Batch((image(), torch.tensor([1.0, 2.0, float("nan"), 3.0])), None), 0)


@pytest.mark.parametrize(
    ("shape", "expected", "message"),
    [
        ((4, 1, 8, 8), (3, 8, 8), r"\(N, 3, 8, 8\), got \(4, 1, 8, 8\); the model takes 3 channels, the data has 1"),
        ((4, 8, 8, 3), (3, 8, 8), r"channels come last: x\.permute\(0, 3, 1, 2\)"),
        ((3, 8, 8), (3, 8, 8), "the batch axis is missing"),
        ((4, 3, 8, 9), (3, 8, 8), r"expected shape \(N, 3, 8, 8\), got \(4, 3, 8, 9\)$"),
        ((4, 3, 8, 9), (3, None, 8), r"expected shape \(N, 3, \?, 8\)"),
        ((0, 3, 8, 8), (3, 8, 8), r"expected samples \(N, \.\.\.\), got shape \(0, 3, 8, 8\)"),
    ],
)
def test_wrong_shapes_say_expected_found_and_why(shape: Any, expected: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_batch(Batch((image(*shape),), None), 0, [expected])


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.uint8, "expected float32, got uint8 .*scale and normalise"),
        (torch.float16, "expected float32, got float16"),
        (torch.float64, "expected float32, got float64"),
    ],
)
def test_wrong_dtypes(dtype: torch.dtype, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_batch(Batch((torch.ones(2, 3, 4, 4, dtype=dtype),), None), 0)


def test_a_dtype_may_be_asked_for() -> None:
    ids = Batch((torch.ones(2, 5, dtype=torch.int64),), None)
    assert check_batch(ids, 0, expected_dtypes=[torch.int64]) == []
    with pytest.raises(DataError, match="expected float32, got int64"):
        check_batch(ids, 0, expected_dtypes=[torch.float32])


def test_numbers_of_inputs_samples_and_targets() -> None:
    with pytest.raises(DataError, match="expected 1 model inputs, got 2"):
        check_batch(Batch((image(), image()), None), 0, [(3, 8, 8)])
    with pytest.raises(DataError, match="input 1: expected 4 samples as in input 0, got 2"):
        check_batch(Batch((image(), image(2, 3)), None), 0)
    with pytest.raises(DataError, match="expected 4 targets, got 3"):
        check_batch(Batch((image(),), torch.arange(3)), 0)


def test_zeros_are_a_warning() -> None:
    zeros = Batch((torch.zeros(40, 3),), None)
    assert check_batch(zeros, 2) == ["batch 2: all 120 values are zero; is the preprocessing right?"]
    with pytest.warns(DataWarning, match="all 120 values are zero"):
        list(checked([zeros]))


def test_few_samples_are_a_warning_and_enough_are_not(recwarn: pytest.WarningsRecorder) -> None:
    few, notes = Batch((image(31, 2),), None), []  # type: tuple[Batch, list[str]]
    assert list(checked([few], notes=notes)) == [few]
    assert len(notes) == 1 and notes[0].startswith("only 31 calibration samples")
    list(checked([few, few]))
    list(checked([few], min_samples=0))
    assert not recwarn.list
    with pytest.warns(DataWarning, match="only 31"):
        list(checked([few]))


def test_nothing_at_all_is_refused() -> None:
    with pytest.raises(DataError, match="expected at least one batch of data, got none"):
        list(checked([]))


def test_checked_counts_batches() -> None:
    bad = Batch((torch.full((2, 2), float("nan")),), None)
    with pytest.raises(DataError, match="batch 1: NaN in 4 of 4"):
        list(checked([Batch((image(2, 2),), None), bad]))
