"""A model of a candidate's score, fitted to candidates that were evaluated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from razordeploy import lazy
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.nas.search.predictors import EXTRA, HANDLERS, Handler
from razordeploy.compress.nas.search.space import SearchSpace, Subnet
from razordeploy.errors import ModelError, UsageError
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text

_LEAST = 4
_FOLDS = 5


class MetricPredictor:
    """Predicts the score of subnets.

    Args:
        handler_cfg: ``dict(type='GaussProcessHandler', ...)``: the regression.
        search_groups: the space, or a mutator's groups.
        train_samples: candidates that a search evaluates before it relies on predictions.
        handler_ckpt: what ``save_checkpoint`` wrote; None: not fitted yet.
        encoding_type: ``onehot`` or ``normal``, as of ``SearchSpace.encode``.
        score_key: name of what is predicted.

    Raises:
        RecipeError: an unknown handler or argument.
        MissingDependency: scikit-learn or SciPy is not installed.
    """

    def __init__(
        self,
        handler_cfg: Mapping[str, Any],
        search_groups: SearchSpace | Mapping[str, Any],
        train_samples: int = 64,
        handler_ckpt: str | Path | None = None,
        encoding_type: str = "onehot",
        score_key: str = "top1",
    ) -> None:
        self.handler: Handler = build(handler_cfg, HANDLERS, "predictor")
        self.space = search_groups if isinstance(search_groups, SearchSpace) else SearchSpace.of_groups(search_groups)
        self.train_samples = train_samples
        self.encoding_type = encoding_type
        self.score_key = score_key
        self.subnets: list[Subnet] = []
        self.scores: list[float] = []
        self.left_out: dict[str, float] = {}
        """``spearman``, ``kendall`` and ``pearson`` correlation on samples that were left out of the fit."""
        if handler_ckpt is not None:
            self.load_checkpoint(handler_ckpt)

    @property
    def initialize(self) -> bool:
        """True once it is fitted."""
        return bool(self.subnets)

    def fit(self, subnets: Sequence[Subnet], scores: Sequence[float]) -> None:
        """Fit to candidates, and see in five folds how well that ranks candidates it has not seen.

        Raises:
            ModelError: fewer than four candidates, or a score that is not finite.
        """
        y = np.asarray(scores, dtype=float)
        if len(subnets) < _LEAST or len(y) != len(subnets) or not bool(np.isfinite(y).all()):
            raise ModelError(
                f"expected at least {_LEAST} subnets with finite scores to fit a predictor to, got {len(subnets)}",
                hint="raise train_samples",
            )
        x = self._vectors(subnets)
        self.left_out = correlation(self._in_folds(x, y), y)
        self.handler.fit(x, y)
        self.subnets, self.scores = [dict(subnet) for subnet in subnets], y.tolist()

    def predict(self, subnet: Mapping[str, Any]) -> dict[str, float]:
        """The score of one subnet, by its name."""
        return {self.score_key: float(self.predict_subnets([dict(subnet)])[0])}

    def predict_subnets(self, subnets: Sequence[Subnet]) -> Any:
        """The scores (subnets,).

        Raises:
            UsageError: it is not fitted yet.
        """
        if not self.initialize:
            raise UsageError("the predictor has not been fitted", hint="call fit(), or give handler_ckpt")
        return np.asarray(self.handler.predict(self._vectors(subnets)), dtype=float)

    def model2vector(self, subnet: Mapping[str, Any]) -> list[float]:
        """The vector of a subnet."""
        return self.space.encode(subnet, self.encoding_type)

    def vector2model(self, vector: Sequence[float]) -> Subnet:
        """The subnet of a vector."""
        return self.space.decode(vector, self.encoding_type)

    def save_checkpoint(self, path: str | Path) -> None:
        """Write what it was fitted to, as JSON: loading fits it again, and runs nothing that a file brings."""
        content = {
            "handler": self.handler.config(),
            "space": self.space.fingerprint(),
            "subnets": self.subnets,
            "scores": self.scores,
        }
        atomic_write(path, json_text(content))

    def load_checkpoint(self, path: str | Path) -> None:
        """Fit it to what ``save_checkpoint`` wrote.

        Raises:
            ModelError: the file cannot be read, or is of another space.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            subnets, scores, space = content["subnets"], content["scores"], content["space"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"'{path}' is no checkpoint of a predictor: {error}") from error
        if space != self.space.fingerprint():
            raise ModelError(f"'{path}' is of a predictor for another search space")
        self.fit([self.space.check(subnet) for subnet in subnets], scores)

    def _vectors(self, subnets: Sequence[Mapping[str, Any]]) -> Any:
        return np.asarray([self.model2vector(subnet) for subnet in subnets], dtype=float)

    def _in_folds(self, x: Any, y: Any) -> Any:
        """For each sample the prediction of a fit without its fold."""
        order = np.random.default_rng(0).permutation(len(y))
        found = np.zeros(len(y))
        for fold in np.array_split(order, min(_FOLDS, len(y))):
            rest = np.setdiff1d(order, fold)
            # A handler of its own: what is fitted last is what predicts.
            handler = build(self.handler.config(), HANDLERS, "predictor")
            handler.fit(x[rest], y[rest])
            found[fold] = handler.predict(x[fold])
        return found


def correlation(predicted: Any, measured: Any) -> dict[str, float]:
    """``spearman`` and ``kendall`` rank correlation and ``pearson`` correlation; 0 where one side is constant."""
    stats = lazy.require("scipy.stats", extra=EXTRA)
    one, other = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return dict.fromkeys(("spearman", "kendall", "pearson"), 0.0)
    return {
        "spearman": float(stats.spearmanr(one, other).statistic),
        "kendall": float(stats.kendalltau(one, other).statistic),
        "pearson": float(stats.pearsonr(one, other).statistic),
    }


PREDICTORS: dict[str, type] = {"MetricPredictor": MetricPredictor}
