"""Regressions from the vector of a subnet to its score."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from razordeploy import lazy
from razordeploy.errors import UsageError, nearest

EXTRA = "search"


class Handler(ABC):
    """A regression that is fitted once, to all data."""

    @abstractmethod
    def fit(self, train_data: Any, train_label: Any) -> None:
        """Fit to vectors (samples, features) and scores (samples,)."""

    @abstractmethod
    def predict(self, test_data: Any) -> Any:
        """Scores (samples,) of vectors (samples, features)."""

    def config(self) -> dict[str, Any]:
        """Name and arguments that make an equal one."""
        return {"type": type(self).__name__, **vars(self)["arguments"]}


class CartsHandler(Handler):
    """Bagged regression trees (CART, Breiman et al. 1984), each on a random part of the features.

    Args:
        num_trees: trees.
        seed: of the bags.
    """

    def __init__(self, num_trees: int = 300, seed: int = 0) -> None:
        self.arguments = {"num_trees": num_trees, "seed": seed}
        ensemble = lazy.require("sklearn.ensemble", extra=EXTRA)
        self.model = ensemble.RandomForestRegressor(num_trees, max_features=0.5, random_state=seed)

    def fit(self, train_data: Any, train_label: Any) -> None:
        """As of every handler."""
        self.model.fit(train_data, train_label)

    def predict(self, test_data: Any) -> Any:
        """As of every handler."""
        return self.model.predict(test_data)


class GaussProcessHandler(Handler):
    """A Gaussian process (Kriging) with noise; the length scale maximises the marginal likelihood.

    Args:
        regr: trend: ``constant`` or ``linear``.
        corr: ``squared_exponential``, ``absolute_exponential`` or ``matern``.
        seed: of the restarts of the optimiser.
    """

    def __init__(self, regr: str = "linear", corr: str = "squared_exponential", seed: int = 0) -> None:
        self.arguments = {"regr": regr, "corr": corr, "seed": seed}
        process = lazy.require("sklearn.gaussian_process", extra=EXTRA)
        kernels = process.kernels
        shapes = {
            "squared_exponential": kernels.RBF(3.0, (0.1, 100.0)),
            "absolute_exponential": kernels.Matern(3.0, (0.1, 100.0), nu=0.5),
            "matern": kernels.Matern(3.0, (0.1, 100.0), nu=2.5),
        }
        _check("corr", corr, tuple(shapes))
        _check("regr", regr, ("constant", "linear"))
        kernel = kernels.ConstantKernel(1.0, (1e-3, 1e3)) * shapes[corr] + kernels.WhiteKernel(0.1, (1e-4, 1.0))
        if regr == "linear":
            kernel = kernel + kernels.DotProduct(1.0, (1e-3, 1e3)) * kernels.ConstantKernel(0.1, (1e-4, 1e2))
        self.model = process.GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)

    def fit(self, train_data: Any, train_label: Any) -> None:
        """As of every handler."""
        with warnings.catch_warnings():
            # A length scale at its bound means that the trend explains all there is.
            warnings.simplefilter("ignore")
            self.model.fit(train_data, train_label)

    def predict(self, test_data: Any) -> Any:
        """As of every handler."""
        return self.model.predict(test_data)


class MLPHandler(Handler):
    """A multi-layer perceptron on normalised scores.

    Args:
        hidden: width of each hidden layer.
        epochs: steps of the optimiser, at most.
        weight_decay: L2 penalty.
        seed: of the initial weights.
    """

    def __init__(
        self, hidden: tuple[int, ...] = (64, 64), epochs: int = 500, weight_decay: float = 1.0, seed: int = 0
    ) -> None:
        self.arguments = {"hidden": tuple(hidden), "epochs": epochs, "weight_decay": weight_decay, "seed": seed}
        network = lazy.require("sklearn.neural_network", extra=EXTRA)
        self.model = network.MLPRegressor(
            hidden_layer_sizes=tuple(hidden), solver="lbfgs", alpha=weight_decay, max_iter=epochs, random_state=seed
        )
        self.mean, self.scale = 0.0, 1.0

    def fit(self, train_data: Any, train_label: Any) -> None:
        """As of every handler."""
        label = np.asarray(train_label, dtype=float)
        self.mean, self.scale = float(label.mean()), float(label.std()) or 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it did not converge within its epochs: that is what they are for
            self.model.fit(train_data, (label - self.mean) / self.scale)

    def predict(self, test_data: Any) -> Any:
        """As of every handler."""
        return self.model.predict(test_data) * self.scale + self.mean


class RBFHandler(Handler):
    """Radial basis functions with a polynomial tail.

    Args:
        kernel: ``tps`` (thin plate spline), ``cubic``, ``linear`` or ``gaussian``.
        tail: ``linear`` or ``constant``; with fewer samples than a linear tail needs it is constant.
        smoothing: 0 goes through every sample.
    """

    def __init__(self, kernel: str = "tps", tail: str = "linear", smoothing: float = 1.0) -> None:
        self.arguments = {"kernel": kernel, "tail": tail, "smoothing": smoothing}
        self.interpolate = lazy.require("scipy.interpolate", extra=EXTRA)
        _check("kernel", kernel, tuple(_KERNELS))
        _check("tail", tail, ("constant", "linear"))
        self.kernel, self.tail, self.smoothing = kernel, tail, smoothing
        self.model: Any = None
        self.centre: Any = None
        self.axes: Any = None

    def fit(self, train_data: Any, train_label: Any) -> None:
        """As of every handler."""
        data = np.asarray(train_data, dtype=float)
        self.centre = data.mean(0)
        # One-hot features depend on each other; a tail needs coordinates that do not.
        _, spread, axes = np.linalg.svd(data - self.centre, full_matrices=False)
        self.axes = axes[spread > 1e-9 * max(spread[0], 1e-12)].T
        linear = self.tail == "linear" and len(data) > self.axes.shape[1] + 1
        # The least tails that these kernels are sound with.
        degree = 1 if linear or self.kernel in ("tps", "cubic") else 0
        if degree == 1 and not linear:
            self.axes = self.axes[:, : max(1, len(data) - 2)]
        shape = {"epsilon": 1 / max(self.axes.shape[1], 1) ** 0.5} if self.kernel == "gaussian" else {}
        self.model = self.interpolate.RBFInterpolator(
            self._place(data),
            np.asarray(train_label, dtype=float),
            kernel=_KERNELS[self.kernel],
            degree=degree,
            smoothing=self.smoothing,
            **shape,
        )

    def predict(self, test_data: Any) -> Any:
        """As of every handler."""
        return self.model(self._place(np.asarray(test_data, dtype=float)))

    def _place(self, data: Any) -> Any:
        return (data - self.centre) @ self.axes


_KERNELS = {"tps": "thin_plate_spline", "cubic": "cubic", "linear": "linear", "gaussian": "gaussian"}

HANDLERS: dict[str, type[Handler]] = {
    "CartsHandler": CartsHandler,
    "GaussProcessHandler": GaussProcessHandler,
    "MLPHandler": MLPHandler,
    "RBFHandler": RBFHandler,
}


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UsageError(f"unknown {name} '{value}'", hint=nearest(str(value), known))
