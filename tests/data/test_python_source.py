from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from razordeploy.data.loader import batches
from razordeploy.data.sources import build_source
from razordeploy.errors import DataError, RecipeError

MODULE = """
import torch
def samples(count, split):
    return [(torch.full((1, 2, 2), float(i)), i if split == "train" else 9) for i in range(count)]
def whole():
    yield torch.zeros(3, 1, 2, 2), torch.tensor([1, 2, 3])
    yield torch.ones(1, 1, 2, 2), torch.tensor([4])
class Data(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return torch.full((2,), float(i)), i
def dataset(): return Data()
def two_inputs(split): return [((torch.zeros(2), torch.ones(3)), 1)] * 3
def empty(split): return []
def number(split): return 3
def unlabelled(split): return [torch.zeros(2)]
def uneven(split): return [(torch.zeros(2, 1), torch.tensor([1, 2, 3]))]
value = 3
"""


@pytest.fixture(autouse=True)
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_data.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("own_data", "own_broken"):
        sys.modules.pop(name, None)


def test_samples_get_the_split_and_the_remaining_keys() -> None:
    train = build_source({"type": "own_data:samples", "count": 3}, "train")
    assert [train[i][1] for i in range(len(train))] == [0, 1, 2]
    assert build_source({"type": "own_data:samples", "count": 3}, "test")[2][1] == 9
    assert float(train[2][0].mean()) == 2.0


def test_batches_are_cut_into_samples_and_the_missing_split_is_said() -> None:
    with pytest.warns(UserWarning, match="takes no argument 'split'"):
        source = build_source({"type": "own_data:whole"})
    assert [source[i][1] for i in range(len(source))] == [1, 2, 3, 4]
    assert source[3][0].shape == (1, 2, 2) and float(source[3][0].sum()) == 4.0


@pytest.mark.filterwarnings("ignore:.*takes no argument 'split'")
def test_a_dataset_is_taken_as_it_is() -> None:
    (batch,) = batches(build_source({"type": "own_data:dataset"}), 8)
    assert batch.target is not None and batch.target.tolist() == [0, 1, 2, 3]
    assert batch.inputs[0][:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_several_inputs_stay_apart() -> None:
    (batch,) = batches(build_source({"type": "own_data:two_inputs"}), 8)
    assert [tuple(x.shape) for x in batch.inputs] == [(3, 2), (3, 3)]


def test_fingerprint_follows_arguments() -> None:
    first, again, other = (build_source({"type": "own_data:samples", "count": n}).fingerprint() for n in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("own_data:nothing", RecipeError, "found no such name"),
        ("own_data:value", RecipeError, "found int"),
        ("no_such_module:fn", RecipeError, "cannot import 'no_such_module'"),
        (":fn", RecipeError, "expected 'package.module:function'"),
        ("own_data:samples", RecipeError, "cannot be called"),
        ("own_broken:fn", ModuleNotFoundError, "package_that_is_not_there"),
        ("own_data:empty", DataError, "returned no sample"),
        ("own_data:number", DataError, "got int"),
        ("own_data:unlabelled", DataError, r"expected \(inputs, target\)"),
        ("own_data:uneven", DataError, "expected 3 samples for 3 targets"),
    ],
)
def test_wrong_functions_are_refused(kind: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build_source({"type": kind})


def test_the_label_is_a_plain_int() -> None:
    label = build_source({"type": "own_data:samples", "count": 2})[0][1]
    assert type(label) is int and not isinstance(label, torch.Tensor)


def test_modules_of_the_recipes_folder_come_first(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "beside.py").write_text(f"def samples(split): return [(__import__('torch').zeros(2), {number})]\n")
    config = {"type": "beside:samples"}
    assert [build_source(config, "test", folder)[0][1] for folder in folders] == [0, 1]
    sys.modules.pop("beside")
    with pytest.raises(RecipeError, match="cannot import 'beside'"):
        build_source(config, "test")
