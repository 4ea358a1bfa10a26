"""CIFAR-10 as one archive of JPEG files per split."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from razordeploy.data.base import Source, check_normalisation, check_split, decode, digest, to_tensor
from razordeploy.errors import DataError

# The folder beside the project's own.
BESIDE_PROJECT = Path(__file__).resolve().parents[3] / "shared" / "data"
KEYS = ("jpeg", "offsets", "labels", "classes")


def data_root() -> Path:
    """Where shared data sets lie: ``RAZORDEPLOY_DATA``, else ``../shared/data`` beside the project."""
    return Path(os.environ.get("RAZORDEPLOY_DATA") or BESIDE_PROJECT).expanduser()


class Cifar10Npz(Source):
    """``<root>/<split>.npz``: arrays ``jpeg`` (uint8, files end to end), ``offsets`` (n + 1), ``labels``, ``classes``.

    Samples are float32 RGB (3, 32, 32), scaled to 0..1, then ``(x - mean) / std``; the defaults are ImageNet's
    statistics, which the public ResNet-20 / ResNet-56 weights were trained with.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "test",
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
    ) -> None:
        check_split(split)
        check_normalisation(tuple(mean), tuple(std), 3)
        self.path = (data_root() / "cifar10" if root is None else Path(root).expanduser()) / f"{split}.npz"
        self.split, self.mean, self.std = split, tuple(mean), tuple(std)
        if not self.path.is_file():
            raise DataError(
                f"expected the CIFAR-10 archive {self.path}, found nothing",
                hint="set RAZORDEPLOY_DATA to the folder that holds cifar10/, or root=... in the recipe's data section",
            )
        try:
            # numpy leaves a file it opened itself open when it is no archive.
            with self.path.open("rb") as file, np.load(file) as archive:
                self._jpeg, self._offsets, self.labels, classes = (archive[key] for key in KEYS)
        except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as exc:
            raise DataError(f"expected an archive with the arrays {', '.join(KEYS)} in {self.path}: {exc}") from exc
        self.classes = tuple(str(c) for c in classes)
        count = len(self.labels)
        if len(self._offsets) != count + 1 or int(self._offsets[-1]) != len(self._jpeg):
            raise DataError(
                f"expected {count + 1} offsets that end at {len(self._jpeg)} bytes in {self.path}, "
                f"found {len(self._offsets)} that end at {int(self._offsets[-1])}",
                hint="the archive is incomplete: write it again",
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        jpeg = self._jpeg[self._offsets[index] : self._offsets[index + 1]].tobytes()
        return to_tensor(decode(io.BytesIO(jpeg), self.name(index)), self.mean, self.std), int(self.labels[index])

    def name(self, index: int) -> str:
        """Archive and position."""
        return f"{self.path}[{index}]"

    def describe(self) -> str:
        """One line: where, how many, which shape."""
        return f"CIFAR-10 {self.path}: {len(self):,} images (3, 32, 32), {len(self.classes)} classes"

    def fingerprint(self) -> str:
        """Identity of the preprocessing and of the archive's name and size."""
        config = {"type": "cifar10_npz", "mean": self.mean, "std": self.std}
        return digest(config, [(self.path.name, self.path.stat().st_size)])
