"""scikit-learn's bundled digits: 1,797 real 8x8 images, no download."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from razordeploy import lazy
from razordeploy.data.base import Source, check_split, digest


class Digits(Source):
    """Handwritten digits 0..9 as float32 (1, 8, 8).

    The split is fixed and stratified: of each class every fifth image in the file's order is held out. No random
    number generator is involved, so the same 1,442 / 355 images are meant on every version of every library.
    """

    # Pixel statistics of all 1,797 images on the 0..1 scale.
    mean, std = 0.3053, 0.3760

    def __init__(self, split: str = "test") -> None:
        check_split(split)
        bunch = lazy.require("sklearn.datasets", extra="data").load_digits()
        labels = np.asarray(bunch.target)
        held_out = np.zeros(len(labels), dtype=bool)
        for label in range(10):
            held_out[np.flatnonzero(labels == label)[4::5]] = True
        self._indices = np.flatnonzero(held_out == (split == "test"))
        images = (bunch.images[self._indices].astype(np.float32) / 16.0 - self.mean) / self.std
        self._images = torch.from_numpy(images.astype(np.float32))[:, None]
        self.labels = labels[self._indices].astype(np.int64)
        self.split = split
        self.classes = tuple(str(c) for c in bunch.target_names)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._images[index], int(self.labels[index])

    def name(self, index: int) -> str:
        """Position in scikit-learn's array."""
        return f"digits[{self._indices[index]}]"

    def describe(self) -> str:
        """One line: what, how many, which shape."""
        return f"scikit-learn digits, {self.split}: {len(self):,} images (1, 8, 8), 10 classes"

    def fingerprint(self) -> str:
        """Identity of the split and its normalisation."""
        return digest({"type": "digits", "split": self.split, "mean": self.mean, "std": self.std}, [("n", len(self))])
