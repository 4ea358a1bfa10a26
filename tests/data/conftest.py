"""Tiny image folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def image_root(tmp_path: Path) -> Path:
    """``<split>/<class>/<i>.png``: 3 cats and 2 dogs per split, RGB, 20 x 24 pixels (height x width)."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, count in (("cat", 3), ("dog", 2)):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "images"
