from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from razordeploy.data.base import Source
from razordeploy.data.loader import batches
from razordeploy.data.sources import build_source
from razordeploy.errors import CheckpointError, ModelError, RecipeError
from razordeploy.models.digits import resnet8
from razordeploy.train.classifier import Classifier, ShiftAndFlip
from razordeploy.train.evaluate import evaluate, module_predict
from razordeploy.train.runner import CHECKPOINT, POINTER, save_state_dict, train_float

pytestmark = [
    # Raised inside mmengine and torch while they import each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mmengine"),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The models are too small for more, and sums then have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Blobs(Source):
    """Forty 4-vectors of two classes, as images (1, 2, 2); ``fail_at``: stop the process at that read."""

    def __init__(self, fail_at: int | None = None, nan: bool = False) -> None:
        labels = torch.arange(40) % 2
        noise = torch.randn(40, 1, 2, 2, generator=torch.Generator().manual_seed(0))
        self.images = noise + labels[:, None, None, None] * 2.0
        if nan:
            self.images[5] = float("nan")
        self.labels, self.fail_at, self.reads = labels, fail_at, 0

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        if self.reads == self.fail_at:
            raise KeyboardInterrupt
        return self.images[index], int(self.labels[index])

    def describe(self) -> str:
        return "blobs"

    def fingerprint(self) -> str:
        return "0"


def small(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, width, 1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * width, 2))


def trained(work_dir: Path, source: Source | None = None, **kwargs: Any) -> dict[str, Tensor]:
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 8, "lr": 1e-2, "shift": 1, **kwargs}
    path = train_float(small(), source or Blobs(), work_dir=work_dir, **settings)
    return torch.load(path, weights_only=True)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.timeout(60)
def test_digits_reach_98_percent(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = resnet8()
    data = {"type": "digits"}
    path = train_float(model, build_source(data, "train"), work_dir=tmp_path, epochs=8, lr=4e-3, shift=1)
    fresh = resnet8()
    fresh.load_state_dict(torch.load(path, weights_only=True))
    found = evaluate(module_predict(fresh), batches(build_source(data, "test"), 100))
    assert found["samples"] == 355 and found["top1"] > 98.0


def test_the_checkpoint_has_the_models_own_keys_and_nothing_lies_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    state = trained(tmp_path / "run")
    assert state.keys() == small().state_dict().keys()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert {p.name for p in tmp_path.iterdir()} == {"elsewhere", "run"}
    names = {p.name for p in (tmp_path / "run").iterdir() if p.is_file() and p.suffix != ".py"}
    assert names == {CHECKPOINT, POINTER, "epoch_3.pth", "epoch_4.pth"}
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.strip().splitlines()
    assert len(lines) == 4 and "epoch 4/4  loss 0." in lines[-1] and "0 s left" in lines[-1]
    (log,) = (tmp_path / "run").glob("*/*.log")
    assert "epoch 4/4  loss" in log.read_text()


def test_the_seed_decides_the_weights(tmp_path: Path) -> None:
    first = trained(tmp_path / "a", seed=3)
    torch.rand(7)
    assert same(first, trained(tmp_path / "b", seed=3))
    assert not same(first, trained(tmp_path / "c", seed=4))


def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trained(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "cut", Blobs(fail_at=100))
    assert (tmp_path / "cut" / POINTER).read_text().endswith("epoch_2.pth")
    assert not (tmp_path / "cut" / CHECKPOINT).exists()
    left = Blobs()
    assert same(whole, trained(tmp_path / "cut", left, resume=True))
    assert left.reads == 2 * 40
    assert capsys.readouterr().out == ""


def test_threads_hold_while_training_only(tmp_path: Path) -> None:
    class Counting(Blobs):
        seen: set[int] = set()

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            self.seen.add(torch.get_num_threads())
            return super().__getitem__(index)

    trained(tmp_path / "a", Counting(), threads=2)
    assert Counting.seen == {2} and torch.get_num_threads() == 1
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", Blobs(fail_at=10), threads=2)
    assert torch.get_num_threads() == 1


def test_resume_without_a_checkpoint_starts_and_after_the_end_does_nothing(tmp_path: Path) -> None:
    first = trained(tmp_path, resume=True)
    again = Blobs()
    assert same(first, trained(tmp_path, again, resume=True))
    assert again.reads == 0


def test_a_moved_work_dir_resumes(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "old", Blobs(fail_at=60))
    (tmp_path / "old").rename(tmp_path / "new")
    left = Blobs()
    trained(tmp_path / "new", left, resume=True)
    assert left.reads == 3 * 40


def test_a_new_run_does_not_resume_from_the_one_before(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path, Blobs(fail_at=10))
    again = Blobs()
    trained(tmp_path, again, resume=True)
    assert again.reads == 4 * 40


def test_checkpoints_to_resume_from_that_are_wrong(tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(CheckpointError, match=r"epoch_4\.pth is of another model: \d+ keys differ"):
        train_float(small(width=4), Blobs(), work_dir=tmp_path, epochs=5, resume=True)
    last = tmp_path / "epoch_4.pth"
    last.write_bytes(last.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"cannot read the checkpoint .*epoch_4\.pth"):
        trained(tmp_path, epochs=5, resume=True)
    last.unlink()
    with pytest.raises(CheckpointError, match=r"expected the checkpoint .*epoch_4\.pth to resume from, found nothing"):
        trained(tmp_path, epochs=5, resume=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the loss is nan in epoch 1"):
        trained(tmp_path, Blobs(nan=True))
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizer": "adamm"}, RecipeError, "did you mean 'adamw'"),
        ({"optimizer": {"type": "Nope"}}, RecipeError, "a type that mmengine or torch has"),
        ({"optimizer": {}}, RecipeError, "a type that mmengine or torch has"),
        ({"epochs": 0}, RecipeError, "got 0, 8 and 0.01"),
        ({"lr": float("nan")}, RecipeError, "lr above 0"),
        ({"threads": 0}, RecipeError, "threads of at least 1"),
    ],
)
def test_wrong_settings(tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        trained(tmp_path, **change)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_mixed_precision_computes_in_less_and_keeps_float32_weights(tmp_path: Path) -> None:
    half, whole = trained(tmp_path / "half", amp=True), trained(tmp_path / "whole")
    assert all(value.dtype in (torch.float32, torch.int64) for value in half.values())
    assert not same(half, whole)
    model = small()
    model.load_state_dict(half)
    assert evaluate(module_predict(model), batches(Blobs(), 40))["top1"] > 80


@pytest.mark.parametrize("optimizer", ["sgd", {"type": "SGD", "momentum": 0.5}])
def test_other_optimizers_learn(tmp_path: Path, optimizer: Any) -> None:
    model = small()
    train_float(model, Blobs(), work_dir=tmp_path, epochs=8, batch_size=8, lr=0.05, optimizer=optimizer)
    assert evaluate(module_predict(model), batches(Blobs(), 40))["top1"] > 90


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / CHECKPOINT
    save_state_dict(small(), path)
    before = path.read_bytes()

    def half(state: Any, file: Path) -> None:
        file.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="No space left"):
        save_state_dict(small(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


def test_classifier_modes() -> None:
    module = nn.Flatten()
    classifier = Classifier(module)
    x, y = torch.tensor([[[[2.0, 0.0]]], [[[0.0, 1.0]]]]), torch.tensor([0, 0])
    torch.testing.assert_close(classifier(x), x.flatten(1))
    assert classifier(x, mode="predict").tolist() == [0, 1]
    loss = classifier(x, y, mode="loss")["loss"]
    torch.testing.assert_close(loss, (torch.log1p(torch.tensor(-2.0).exp()) + torch.log1p(torch.tensor(1.0).exp())) / 2)
    with pytest.raises(ModelError, match="got 'losses'"):
        classifier(x, y, mode="losses")
    with pytest.raises(
        ModelError, match=r"expected logits \(N, classes\) from the model to train it, got \(2, 1, 1, 2\)"
    ):
        Classifier(nn.Identity())(x, y, mode="loss")


def test_shifts_move_whole_images_and_only_in_training() -> None:
    torch.manual_seed(0)
    images = torch.full((64, 2, 5, 5), -1.0)
    images[:, 0, 2, 2], images[:, 1, 2, 2] = 3.0, 5.0
    augment = ShiftAndFlip(shift=1)
    labels = torch.arange(64)
    plain = augment((images, labels), training=False)["inputs"]
    assert torch.equal(plain, images)
    moved = augment((images, labels), training=True)["inputs"]
    places = set()
    for image in moved:
        (first,), (second,) = (image[0] == 3.0).nonzero().tolist(), (image[1] == 5.0).nonzero().tolist()
        assert first == second and float(image.sum()) == float(images[0].sum())
        places.add(tuple(first))
    assert places == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}


def test_flips_mirror_about_half() -> None:
    torch.manual_seed(0)
    images = torch.arange(3.0).expand(200, 1, 1, 3)
    flipped = ShiftAndFlip(flip=True)((images, torch.zeros(200)), training=True)["inputs"]
    mirrored = (flipped[:, 0, 0] == torch.tensor([2.0, 1.0, 0.0])).all(1)
    assert bool((mirrored | (flipped[:, 0, 0] == images[0, 0, 0]).all(1)).all())
    assert 70 < int(mirrored.sum()) < 130
