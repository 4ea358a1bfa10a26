"""Objectives that the tests of the Python interface run in other processes."""

from __future__ import annotations

import math
from typing import Any


def bowl(trial: Any) -> float:
    return -((trial.params["x"] - 0.3) ** 2)


def two(trial: Any) -> dict[str, float]:
    x = trial.params["x"]
    return {"good": x, "cost": x * x}


def growing(trial: Any) -> float:
    for step in range(1, 40):
        trial.report(trial.params["x"] * (1 - math.exp(-step / 5)), step)
        if trial.params["x"] < 0.5:
            import time

            time.sleep(0.05)
    return trial.params["x"]


def failing(trial: Any) -> float:
    if trial.params["x"] == 2:
        raise RuntimeError("out of luck")
    return {1: math.nan, 3: 3.0}[trial.params["x"]]
