"""Ordinary image folders: one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from razordeploy import lazy
from razordeploy.data.base import Source, check_normalisation, check_split, decode, digest, to_tensor
from razordeploy.errors import DataError, RecipeError, nearest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
INTERPOLATIONS = {"nearest": "NEAREST", "bilinear": "BILINEAR", "bicubic": "BICUBIC", "lanczos": "LANCZOS"}
# Folder names in use for the two splits; the first that exists is taken.
SPLIT_FOLDERS = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}


class ImageFolder(Source):
    """``root/<split>/<class>/*.jpg`` or ``root/<class>/*.jpg`` as float32 RGB (3, H, W).

    Classes are the folder names in sorted order. Without split folders both splits are the same images, and
    :meth:`describe` says so.

    Args:
        root: the folder.
        split: ``train`` or ``test`` (a folder ``val`` serves as test).
        resize: int: the shorter side, in pixels; (height, width): exactly that; None: as stored.
        crop: size of the centre crop, int or (height, width); None: no crop.
        mean, std: per RGB channel, on pixels scaled to 0..1.
        interpolation: nearest, bilinear, bicubic or lanczos.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        resize: int | Sequence[int] | None = 256,
        crop: int | Sequence[int] | None = 224,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        interpolation: str = "bilinear",
    ) -> None:
        check_split(split)
        check_normalisation(tuple(mean), tuple(std), 3)
        if interpolation not in INTERPOLATIONS:
            raise RecipeError(f"unknown interpolation {interpolation!r}", hint=nearest(interpolation, INTERPOLATIONS))
        self.root, self.split = Path(root).expanduser(), split
        self.resize, self.crop = _size("resize", resize), _size("crop", crop)
        self.mean, self.std, self.interpolation = tuple(mean), tuple(std), interpolation
        self.folder, self._has_splits = _split_folder(self.root, split)
        folders = sorted(p for p in self.folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        self.classes = tuple(p.name for p in folders)
        self.files = [
            (path, label) for label, folder in enumerate(folders)
            for path in sorted(folder.rglob("*")) if path.suffix.lower() in EXTENSIONS and path.is_file()
        ]  # fmt: skip
        if not self.files:
            raise DataError(
                f"expected images as {self.folder}/<class>/*.jpg, found {len(folders)} folders and no image",
                hint=f"known endings: {' '.join(EXTENSIONS)}",
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        return to_tensor(self._resized(decode(path, str(path)), path), self.mean, self.std), label

    def _resized(self, image: Any, path: Path) -> Any:
        if isinstance(self.resize, int):
            scale = self.resize / min(image.size)
            size = [max(self.resize, round(side * scale)) for side in image.size]
        elif self.resize is not None:
            size = [self.resize[1], self.resize[0]]
        else:
            size = list(image.size)
        if tuple(size) != image.size:
            resampling = lazy.require("PIL.Image", extra="data").Resampling
            image = image.resize(tuple(size), resampling[INTERPOLATIONS[self.interpolation]])
        if self.crop is None:
            return image
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        if image.width < width or image.height < height:
            raise DataError(
                f"cannot crop {height}x{width} from {path}: it is {image.height}x{image.width} "
                f"after resize={self.resize}",
                hint="raise resize or lower crop",
            )
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))

    def name(self, index: int) -> str:
        """The image's path."""
        return str(self.files[index][0])

    def describe(self) -> str:
        """One line: where, how many, which preprocessing."""
        shared = "" if self._has_splits else " (no split folders: train and test are the same images)"
        return (
            f"image folder {self.folder}, {self.split}{shared}: {len(self):,} images, {len(self.classes)} classes, "
            f"resize {self.resize}, crop {self.crop}"
        )

    def fingerprint(self) -> str:
        """Identity of the preprocessing and of the file list with sizes."""
        config = {
            "type": "image_folder", "resize": self.resize, "crop": self.crop, "mean": self.mean, "std": self.std,
            "interpolation": self.interpolation,
        }  # fmt: skip
        return digest(config, ((str(p.relative_to(self.folder)), p.stat().st_size) for p, _ in self.files))


def _size(key: str, value: int | Sequence[int] | None) -> int | tuple[int, int] | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value > 0):
        return value
    if isinstance(value, Sequence) and len(value) == 2 and all(isinstance(v, int) and v > 0 for v in value):
        return (value[0], value[1])
    raise RecipeError(f"expected {key} to be a size in pixels, (height, width) or None, got {value!r}")


def _split_folder(root: Path, split: str) -> tuple[Path, bool]:
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(
            f"expected an image folder at {root}, found {found}",
            hint="set data=dict(type='image_folder', root=...); a relative path starts at the current folder",
        )
    # A class may itself be called "train": only a folder of folders is a split.
    present = {
        s: [root / n for n in names if (root / n).is_dir() and any(p.is_dir() for p in (root / n).iterdir())]
        for s, names in SPLIT_FOLDERS.items()
    }
    if present[split]:
        return present[split][0], True
    other = next((folders[0] for folders in present.values() if folders), None)
    if other is not None:
        raise DataError(
            f"expected {root}/{split}/<class>/, found only {other}",
            hint=f"one of the folders {', '.join(SPLIT_FOLDERS[split])} holds the {split} split",
        )
    return root, False
