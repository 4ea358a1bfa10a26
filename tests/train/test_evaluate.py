from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from razordeploy.data.batch import Batch
from razordeploy.errors import DataError, ModelError, RecipeError
from razordeploy.train.evaluate import METRICS, evaluate, module_predict

LOGITS = np.array(
    [
        # label 0: rank 1, 2, 6 (of 7 classes) and, in the last row, tied with a later class
        [9, 1, 2, 3, 4, 5, 6],
        [5, 9, 1, 1, 1, 1, 1],
        [1, 2, 3, 4, 5, 6, 0],
        [7, 0, 7, 0, 0, 0, 0],
    ],
    dtype=np.float32,
)


def cut(logits: np.ndarray, labels: list[int], size: int = 3) -> list[Batch]:
    """Batches whose inputs are the logits themselves."""
    x, y = torch.from_numpy(logits), torch.tensor(labels)
    return [Batch((x[i : i + size],), y[i : i + size]) for i in range(0, len(x), size)]


def same(x: np.ndarray) -> np.ndarray:
    return x


def test_top1_and_top5_by_hand() -> None:
    # top-1: rows 0 and 3; top-5: all but row 2.
    assert evaluate(same, cut(LOGITS, [0, 0, 0, 0])) == {"top1": 50.0, "top5": 75.0, "samples": 4}


def test_ties_rank_as_argmax_does() -> None:
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 4, (200, 8)).astype(np.float32)
    labels = rng.integers(0, 8, 200)
    found = evaluate(same, cut(logits, labels.tolist()))
    assert found["top1"] == 100 * float((logits.argmax(1) == labels).mean())
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert found["top5"] == 100 * float((order == labels[:, None]).any(1).mean())


def test_five_classes_have_no_top5_and_the_batch_size_does_not_matter() -> None:
    logits = LOGITS[:, :5]
    results = [evaluate(same, cut(logits, [0, 1, 4, 2], size)) for size in (1, 2, 3, 4)]
    assert all(r == {"top1": 75.0, "samples": 4} for r in results)


def test_predict_gets_numpy_arrays_and_may_return_several_outputs() -> None:
    seen: list[Any] = []

    def predict(x: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append((type(x), mask.shape))
        return x, mask

    batch = Batch((torch.from_numpy(LOGITS), torch.zeros(4, 2)), torch.zeros(4, dtype=torch.int64))
    assert evaluate(predict, [batch])["top1"] == 50.0
    assert seen == [(np.ndarray, (4, 2))]


def test_a_function_sees_all_batches_at_once() -> None:
    def spread(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        return {"max": outputs.max(), "labels": len(set(targets.tolist()))}

    found = evaluate(same, cut(LOGITS, [0, 1, 2, 3], size=1), spread)
    assert found == {"max": 9.0, "labels": 4.0, "samples": 4}


def test_a_metric_object_streams() -> None:
    class Count:
        calls = 0

        def update(self, outputs: Any, targets: np.ndarray) -> None:
            self.calls += 1

        def compute(self) -> dict[str, float]:
            return {"batches": self.calls}

    assert evaluate(same, cut(LOGITS, [0] * 4, size=1), Count()) == {"batches": 4, "samples": 4}


def test_nan_outputs_are_refused_with_their_place() -> None:
    bad = LOGITS.copy()
    bad[3, 1] = bad[3, 2] = np.nan
    with pytest.raises(ModelError, match="output 0 holds NaN in 2 of 7 values at batch 1"):
        evaluate(same, cut(bad, [0] * 4))
    with pytest.raises(ModelError, match="output 1 holds NaN"):
        evaluate(lambda x: (np.zeros_like(x), x), cut(bad, [0] * 4, size=4))


@pytest.mark.parametrize(
    ("output", "message"),
    [(np.zeros((3, 7, 1, 1)), r"got shape \(3, 7, 1, 1\)"), (np.zeros((2, 7)), r"expected logits \(3, classes\)")],
)
def test_outputs_that_are_no_logits(output: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        evaluate(lambda x: output, cut(LOGITS, [0] * 4))


@pytest.mark.parametrize("label", [7, -1])
def test_labels_outside_the_classes(label: int) -> None:
    with pytest.raises(DataError, match="expected labels from 0 to 6"):
        evaluate(same, cut(LOGITS, [0, 0, 0, label]))


def test_no_labels_no_samples_no_such_metric() -> None:
    with pytest.raises(DataError, match="batch 0: expected labels"):
        evaluate(same, [Batch((torch.from_numpy(LOGITS),), None)])
    with pytest.raises(DataError, match="at least one sample"):
        evaluate(same, [])
    with pytest.raises(RecipeError, match="did you mean 'top1'"):
        evaluate(same, cut(LOGITS, [0] * 4), "top_1")
    with pytest.raises(RecipeError, match="got int"):
        evaluate(same, cut(LOGITS, [0] * 4), 3)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="expected a dict of figures"):
        evaluate(same, cut(LOGITS, [0] * 4), lambda outputs, targets: 3)  # type: ignore[arg-type, return-value]


def test_a_metric_starts_anew_each_time() -> None:
    assert METRICS["top1"]() is not METRICS["top1"]()
    first = evaluate(same, cut(LOGITS, [0] * 4))
    assert evaluate(same, cut(LOGITS, [0] * 4)) == first


@pytest.mark.parametrize("training", [True, False])
def test_module_predict_is_in_eval_mode_and_puts_the_mode_back(training: bool) -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(7), torch.nn.Dropout(0.5)).train(training)
    np.testing.assert_allclose(module_predict(model)(LOGITS), LOGITS, rtol=1e-4)
    assert model.training is training
    assert float(model[0].running_mean.abs().sum()) == 0.0
