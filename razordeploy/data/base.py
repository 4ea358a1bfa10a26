"""The map-style dataset behind ``data = dict(type=...)``."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from razordeploy.errors import DataError, RecipeError

SPLITS = ("train", "test")


class Source(Dataset[tuple[Any, int]]):
    """One split of a labelled data set: preprocessed tensors, cheap to describe and to identify."""

    classes: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Any, int]:
        """One sample without a batch axis, float32 (C, H, W) or a tuple of inputs, and its class (-1: none)."""

    @abstractmethod
    def describe(self) -> str:
        """One line for logs and reports: what, where from, how many, which shape."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Identity of configuration and files (names and sizes, not contents), 16 hex digits; cheap."""

    def name(self, index: int) -> str:
        """What to call sample ``index`` in a message: its file where there is one."""
        return str(index)


class Subset(Source):
    """A seeded random part of a data set, in a fixed order."""

    def __init__(self, source: Source, samples: int, seed: int = 0) -> None:
        import torch

        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
        self.source, self.indices = source, order[:samples].tolist()
        self.classes, self.seed = source.classes, seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.source[self.indices[index]]

    def describe(self) -> str:
        """One line: how many of what."""
        return f"{len(self):,} of {self.source.describe()}"

    def fingerprint(self) -> str:
        """Identity of the whole and of the part."""
        return digest({"of": self.source.fingerprint(), "samples": len(self), "seed": self.seed}, [])

    def name(self, index: int) -> str:
        """The sample's name in the whole."""
        return self.source.name(self.indices[index])


def digest(config: Mapping[str, Any], files: Iterable[tuple[str, int]]) -> str:
    """Hash a configuration and a list of (name, size in bytes) to 16 hex digits."""
    text = json.dumps([config, sorted(files)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_split(split: str) -> None:
    """Refuse a split name that is neither ``train`` nor ``test``."""
    if split not in SPLITS:
        raise RecipeError(f"expected the split 'train' or 'test', got {split!r}")


def check_normalisation(mean: tuple[float, ...], std: tuple[float, ...], channels: int) -> None:
    """Refuse a mean or std of the wrong length, on the 0..255 scale, or with a zero."""
    if len(mean) != channels or len(std) != channels:
        raise RecipeError(f"expected {channels} values of mean and of std, got {len(mean)} and {len(std)}")
    if max(mean) > 1 or max(std) > 1:
        raise RecipeError(
            f"expected mean and std of pixels scaled to 0..1, got mean={list(mean)}, std={list(std)}",
            hint="divide both by 255",
        )
    if min(std) <= 0:
        raise RecipeError(f"expected a std above 0, got {list(std)}")


def decode(data: Any, name: str, mode: str = "RGB") -> Any:
    """Open an image (a path or a file object) with Pillow and convert it to ``mode``.

    Raises:
        DataError: Pillow cannot read it; names the file.
    """
    from razordeploy import lazy

    image_module = lazy.require("PIL.Image", extra="data")
    try:
        with image_module.open(data) as image:
            return image.convert(mode)
    # Pillow reports a broken file as SyntaxError (PNG), ValueError or struct-level OverflowError besides OSError.
    except (OSError, SyntaxError, ValueError, OverflowError, image_module.DecompressionBombError) as exc:
        raise DataError(
            f"cannot read the image {name}: {exc}", hint="remove the file or replace it with a valid image"
        ) from exc


def to_tensor(image: Any, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn a Pillow image into float32 (C, H, W): scaled to 0..1, then ``(x - mean) / std`` per channel."""
    import numpy as np
    import torch

    pixels: Any = np.asarray(image, dtype=np.float32) / 255.0
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    pixels = (pixels - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
