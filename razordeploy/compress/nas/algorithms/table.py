"""The algorithms that a recipe may name."""

from __future__ import annotations

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.nas.algorithms.spos import SPOS, Autoformer

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "Autoformer": Autoformer,
    "SPOS": SPOS,
}
