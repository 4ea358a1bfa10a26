"""Learning curves carried on: a dozen growing families, fitted by least squares (Domhan et al. 2015, table 1)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from razordeploy.lazy import require

_LEAST_FITS = 4
"""Fewer families that fit say nothing."""
_FARTHEST = 1.5
"""A prediction farther outside the seen values than this many of their spans is a failed fit."""

Family = Callable[..., Any]


def _vapor_pressure(x: Any, a: float, b: float, c: float) -> Any:
    return np.exp(a + b / x + c * np.log(x))


def _pow3(x: Any, a: float, c: float, alpha: float) -> Any:
    return c - a * x**-alpha


def _log_log_linear(x: Any, a: float, b: float) -> Any:
    return np.log(np.maximum(a * np.log(x) + b, 1e-12))


def _hill3(x: Any, y: float, theta: float, eta: float) -> Any:
    return y * x**eta / (np.abs(theta) ** eta + x**eta)


def _log_power(x: Any, a: float, b: float, c: float) -> Any:
    return a / (1 + (x / np.exp(b)) ** c)


def _pow4(x: Any, a: float, b: float, c: float, alpha: float) -> Any:
    return c - np.abs(a * x + b) ** -alpha


def _mmf(x: Any, alpha: float, beta: float, kappa: float, delta: float) -> Any:
    return alpha - (alpha - beta) / (1 + np.abs(kappa * x) ** delta)


def _exp4(x: Any, a: float, b: float, c: float, alpha: float) -> Any:
    return c - np.exp(-a * x**alpha + b)


def _ilog2(x: Any, a: float, c: float) -> Any:
    return c - a / np.log(x + 1)


def _weibull(x: Any, alpha: float, beta: float, kappa: float, delta: float) -> Any:
    return alpha - (alpha - beta) * np.exp(-(np.abs(kappa * x) ** delta))


def _janoschek(x: Any, alpha: float, beta: float, kappa: float, delta: float) -> Any:
    return alpha - (alpha - beta) * np.exp(-kappa * x**delta)


FAMILIES: tuple[tuple[Family, tuple[float, ...]], ...] = (
    (_vapor_pressure, (-0.6, -0.6, 0.1)),
    (_pow3, (0.8, 1.0, 0.5)),
    (_log_log_linear, (0.5, 1.5)),
    (_hill3, (1.0, 1.0, 0.7)),
    (_log_power, (1.0, 0.5, -1.0)),
    (_pow4, (1.0, 1.0, 1.2, 0.5)),
    (_mmf, (1.0, 0.0, 0.5, 0.9)),
    (_exp4, (0.6, 0.0, 1.0, 0.5)),
    (_ilog2, (0.6, 1.0)),
    (_weibull, (1.0, 0.0, 0.3, 0.9)),
    (_janoschek, (1.0, 0.0, 0.3, 0.9)),
)
"""Family, and where its fit starts for values from 0 to 1."""


def predicted(values: Sequence[float], last_step: int) -> float | None:
    """Carry a curve on to ``last_step``; None where too few families fit it.

    Args:
        values: one per step from 1, more being better; a curve that falls is as good a curve.
        last_step: where the curve ends.

    The families are fitted to the values scaled to [0, 1], and the predictions averaged with the inverse of their mean
    squared error as weights, so that a family that fits badly counts for little.
    """
    optimize = require("scipy.optimize", extra="hpo")
    y = np.asarray(values, dtype=float)
    low, span = float(y.min()), float(y.max() - y.min())
    if not np.isfinite(y).all() or span == 0:
        return float(y[-1]) if np.isfinite(y).all() else None
    scaled = (y - low) / span
    x = np.arange(1, len(y) + 1, dtype=float)
    ends, weights = [], []
    for family, start in FAMILIES:
        fitted = _fit(optimize, family, start, x, scaled)
        if fitted is None:
            continue
        with np.errstate(all="ignore"):
            end = float(family(float(last_step), *fitted))
            error = float(np.mean((family(x, *fitted) - scaled) ** 2))
        if np.isfinite(end) and np.isfinite(error) and -_FARTHEST <= end <= 1 + _FARTHEST:
            ends.append(end)
            weights.append(1 / (error + 1e-6))
    if len(ends) < _LEAST_FITS:
        return None
    return low + span * float(np.average(ends, weights=weights))


def _fit(optimize: Any, family: Family, start: tuple[float, ...], x: Any, y: Any) -> Any:
    if len(x) < len(start):
        return None
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            found, _ = optimize.curve_fit(family, x, y, p0=start, maxfev=400)
        except (RuntimeError, ValueError, TypeError):
            return None
    return found if np.isfinite(found).all() else None
