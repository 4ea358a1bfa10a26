from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from razordeploy.data.cifar10_npz import data_root
from razordeploy.data.sources import SOURCES, build_source
from razordeploy.errors import DataError, RecipeError


def write_cifar(folder: Path, colours: list[int]) -> Path:
    """Write ``test.npz`` of plain 32x32 images, one grey value and one label per image."""
    files = []
    for value in colours:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32), (value, value, value)).save(buffer, "JPEG", quality=95)
        files.append(np.frombuffer(buffer.getvalue(), dtype=np.uint8))
    path = folder / "test.npz"
    offsets = np.cumsum([0, *map(len, files)])
    labels = np.arange(len(colours), dtype=np.uint8)
    np.savez(path, jpeg=np.concatenate(files), offsets=offsets, labels=labels, classes=np.array(["a", "b", "c"]))
    return path


def test_digits_split_is_fixed_stratified_and_disjoint() -> None:
    train, test = (build_source({"type": "digits"}, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (1442, 355)
    share = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert share.min() > 0.19 and share.max() <= 0.2
    assert not {train.name(i) for i in range(len(train))} & {test.name(i) for i in range(len(test))}
    image, label = test[0]
    assert image.dtype == torch.float32 and image.shape == (1, 8, 8) and isinstance(label, int)


def test_digits_are_normalised_and_carry_their_own_label() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    train, test = (build_source({"type": "digits"}, split) for split in ("train", "test"))
    pixels = torch.cat([torch.stack([s[i][0] for i in range(len(s))]) for s in (train, test)])
    assert abs(float(pixels.mean())) < 1e-3 and abs(float(pixels.std()) - 1) < 1e-3
    index = int(test.name(7).removeprefix("digits[").removesuffix("]"))
    image, label = test[7]
    assert label == bunch.target[index]
    np.testing.assert_allclose(image[0].numpy() * 0.3760 + 0.3053, bunch.images[index] / 16, atol=1e-6)


def test_image_folder_reads_splits_and_classes(image_root: Path) -> None:
    source = build_source({"type": "image_folder", "root": str(image_root), "resize": 18, "crop": 16}, "train")
    assert len(source) == 5 and source.classes == ("cat", "dog")
    assert [source[i][1] for i in range(5)] == [0, 0, 0, 1, 1]
    assert source[0][0].shape == (3, 16, 16) and source[0][0].dtype == torch.float32
    assert source.name(3) == str(image_root / "train" / "dog" / "0.png")
    assert "5 images, 2 classes" in source.describe()


def test_image_folder_values_are_rgb_scaled_and_normalised(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    Image.new("RGB", (6, 4), (255, 51, 0)).save(tmp_path / "red" / "x.png")
    config = {"type": "image_folder", "root": tmp_path, "mean": [0.5, 0.2, 0.1], "std": [0.5, 0.1, 0.2]}
    image, _ = build_source({**config, "resize": None, "crop": None})[0]
    assert image.shape == (3, 4, 6)
    for channel, value in enumerate((1.0, 0.0, -0.5)):
        torch.testing.assert_close(image[channel], torch.full((4, 6), value), atol=1e-6, rtol=0)


def test_image_folder_resize_keeps_the_shorter_side_and_crop_takes_the_centre(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    picture = Image.new("RGB", (40, 20), 0)
    picture.paste((255, 255, 255), (15, 0, 25, 20))
    picture.save(tmp_path / "c" / "x.png")
    plain = {"type": "image_folder", "root": tmp_path, "mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "nearest"}
    assert build_source({**plain, "resize": 10, "crop": None})[0][0].shape == (3, 10, 20)
    assert build_source({**plain, "resize": [8, 12], "crop": None})[0][0].shape == (3, 8, 12)
    centre, _ = build_source({**plain, "resize": None, "crop": 10})[0]
    assert centre.shape == (3, 10, 10) and float(centre.min()) == 1.0


def test_image_folder_without_split_folders_says_so(image_root: Path) -> None:
    source = build_source({"type": "image_folder", "root": image_root / "train", "resize": 8, "crop": 8})
    assert len(source) == 5 and "same images" in source.describe()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "x.png")
    source = build_source({"type": "image_folder", "root": tmp_path, "resize": None, "crop": None})
    assert source.classes == ("car", "train")


def test_fingerprint_follows_configuration_and_files(image_root: Path) -> None:
    config = {"type": "image_folder", "root": image_root, "resize": 18, "crop": 16}
    first = build_source(config).fingerprint()
    assert build_source(config).fingerprint() == first
    assert build_source({**config, "crop": 12}).fingerprint() != first
    Image.new("RGB", (20, 24)).save(image_root / "test" / "cat" / "new.png")
    assert build_source(config).fingerprint() != first


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_an_unreadable_image_is_named(image_root: Path, content: bytes) -> None:
    (image_root / "test" / "cat" / "1.png").write_bytes(content)
    source = build_source({"type": "image_folder", "root": image_root, "resize": 18, "crop": 16})
    with pytest.raises(DataError, match=r"cannot read the image .*test/cat/1\.png"):
        source[1]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected an image folder at .*nowhere, found nothing"):
        build_source({"type": "image_folder", "root": tmp_path / "nowhere"})


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="found 1 folders and no image"):
        build_source({"type": "image_folder", "root": tmp_path})


def test_a_missing_split_is_refused(image_root: Path) -> None:
    (image_root / "test").rename(image_root / "other")
    with pytest.raises(DataError, match=r"test/<class>/, found only .*train"):
        build_source({"type": "image_folder", "root": image_root}, "test")


def test_crop_larger_than_the_image_names_the_file(image_root: Path) -> None:
    source = build_source({"type": "image_folder", "root": image_root, "resize": None, "crop": 22})
    with pytest.raises(DataError, match=r"cannot crop 22x22 from .*0\.png: it is 20x24"):
        source[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "digts"}, "did you mean 'digits'"),
        ({"type": None}, "expected dict"),
        ({"rot": "x"}, "did you mean 'root'"),
        ({"mean": [123.675, 116.28, 103.53]}, "divide both by 255"),
        ({"std": [0.2, 0.0, 0.2]}, "std above 0"),
        ({"std": [0.2]}, "expected 3 values"),
        ({"resize": -1}, "expected resize"),
        ({"crop": [1, 2, 3]}, "expected crop"),
        ({"interpolation": "bilinaer"}, "did you mean 'bilinear'"),
    ],
)
def test_wrong_sections_are_refused(image_root: Path, change: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build_source({"type": "image_folder", "root": image_root, **change})


def test_image_folder_needs_a_root() -> None:
    with pytest.raises(RecipeError, match="needs the key 'root'"):
        build_source({"type": "image_folder"})


@pytest.mark.parametrize("kind", SOURCES)
def test_an_unknown_split_is_refused(kind: str, image_root: Path) -> None:
    config = {"type": kind, **({"root": image_root} if kind != "digits" else {})}
    with pytest.raises(RecipeError, match="'train' or 'test', got 'valid'"):
        build_source(config, "valid")


def test_cifar10_npz_decodes_and_normalises(tmp_path: Path) -> None:
    path = write_cifar(tmp_path, [0, 255, 128])
    source = build_source({"type": "cifar10_npz", "root": tmp_path, "mean": [0.5] * 3, "std": [0.5] * 3})
    assert len(source) == 3 and source.classes == ("a", "b", "c")
    assert [source[i][1] for i in range(3)] == [0, 1, 2]
    for index, value in enumerate((-1.0, 1.0, 128 / 127.5 - 1)):
        torch.testing.assert_close(source[index][0], torch.full((3, 32, 32), value), atol=1e-6, rtol=0)
    assert source.name(2) == f"{path}[2]"


def test_cifar10_npz_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cifar10").mkdir()
    write_cifar(tmp_path / "cifar10", [1, 2])
    monkeypatch.setenv("RAZORDEPLOY_DATA", str(tmp_path))
    assert len(build_source({"type": "cifar10_npz"})) == 2


def test_cifar10_npz_absent_truncated_or_foreign(tmp_path: Path) -> None:
    config = {"type": "cifar10_npz", "root": tmp_path}
    with pytest.raises(DataError, match="found nothing.*RAZORDEPLOY_DATA"):
        build_source(config)
    path = write_cifar(tmp_path, [1, 2])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="expected an archive with the arrays"):
        build_source(config)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(DataError, match="jpeg, offsets, labels, classes"):
        build_source(config)
    np.savez(path, jpeg=np.zeros(9, np.uint8), offsets=np.array([0, 5]), labels=np.zeros(2), classes=np.array(["a"]))
    with pytest.raises(DataError, match="expected 3 offsets that end at 9 bytes"):
        build_source(config)


def test_cifar10_npz_names_a_broken_image(tmp_path: Path) -> None:
    path = write_cifar(tmp_path, [10, 20])
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["jpeg"][arrays["offsets"][1] :] = 0
    np.savez(path, **arrays)
    source = build_source({"type": "cifar10_npz", "root": tmp_path})
    assert source[0][1] == 0
    with pytest.raises(DataError, match=r"cannot read the image .*test\.npz\[1\]"):
        source[1]


def test_the_shared_cifar10_archive() -> None:
    if not (data_root() / "cifar10" / "test.npz").is_file():
        pytest.skip(f"no CIFAR-10 archive under {data_root()} (set RAZORDEPLOY_DATA)")
    source = build_source({"type": "cifar10_npz"})
    assert len(source) == 10_000 and source[9_999][0].shape == (3, 32, 32)
    assert sorted(np.bincount(source.labels)) == [1000] * 10


def test_a_part_of_a_split():
    whole, part = (build_source({"type": "digits", **more}, "train") for more in ({}, {"samples": {"train": 50}}))
    assert len(part) == 50
    assert len(build_source({"type": "digits", "samples": {"train": 50}}, "test")) == 355
    assert len(build_source({"type": "digits", "samples": 40}, "test")) == 40
    assert len(build_source({"type": "digits", "samples": 10**6}, "train")) == len(whole)
    again = build_source({"type": "digits", "samples": 50}, "train")
    assert [part.name(i) for i in range(50)] == [again.name(i) for i in range(50)]
    assert len({part.name(i) for i in range(50)}) == 50
    assert part.fingerprint() == again.fingerprint() != whole.fingerprint()
    assert {part[i][1] for i in range(50)} == set(range(10))
    for wrong, message in ((0, "at least 1, got 0"), ({"val": 3}, "unknown split 'val'"), ("all", "got 'all'")):
        with pytest.raises(RecipeError, match=message):
            build_source({"type": "digits", "samples": wrong}, "train")
    with pytest.raises(RecipeError, match="did you mean 'samples'"):
        build_source({"type": "digits", "sample": 3}, "train")
