"""The algorithms that a recipe may name."""

from __future__ import annotations

from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.nas.algorithms.bignas import BigNAS
from razordeploy.compress.nas.algorithms.darts import Darts
from razordeploy.compress.nas.algorithms.dsnas import DSNAS
from razordeploy.compress.nas.algorithms.spos import SPOS, Autoformer

ALGORITHMS: dict[str, type[BaseAlgorithm]] = {
    "Autoformer": Autoformer,
    "BigNAS": BigNAS,
    "DSNAS": DSNAS,
    "Darts": Darts,
    "SPOS": SPOS,
}
