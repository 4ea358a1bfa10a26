"""The algorithms that a recipe may name, and how a list of them is built and run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from razordeploy.errors import RecipeError, nearest
from razordeploy.quantization.algorithms.batchnorm import BatchNormReestimation
from razordeploy.quantization.algorithms.bias_correction import BiasCorrection, FastBiasCorrection
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.equalization import CrossLayerEqualization
from razordeploy.quantization.algorithms.learned import BRECQ, AdaRound, LSQFinetune, QDrop
from razordeploy.quantization.algorithms.range_search import RangeSearch
from razordeploy.quantization.algorithms.smooth_quant import SmoothQuant
from razordeploy.quantization.draft import Draft


class Algorithm(Protocol):
    """Changes a draft in place."""

    def apply(self, draft: Draft, work: Work) -> None:
        """Change ``draft``, which is the caller's own copy."""


ALGORITHMS: dict[str, type[Any]] = {
    "AdaRound": AdaRound,
    "BRECQ": BRECQ,
    "BatchNormReestimation": BatchNormReestimation,
    "BiasCorrection": BiasCorrection,
    "CrossLayerEqualization": CrossLayerEqualization,
    "FastBiasCorrection": FastBiasCorrection,
    "LSQFinetune": LSQFinetune,
    "QDrop": QDrop,
    "RangeSearch": RangeSearch,
    "SmoothQuant": SmoothQuant,
}
EQUALIZING = frozenset({"CrossLayerEqualization", "SmoothQuant"})
"""Those that leave the float model's function as it is and place the grids anew: they come before all others."""


def build_algorithm(config: Mapping[str, Any]) -> Algorithm:
    """Build an algorithm from ``{"type": name, option: value}``.

    Raises:
        RecipeError: an unknown name or option (names the nearest), or a value that cannot be.
    """
    options = dict(config)
    name = str(options.pop("type"))
    if name not in ALGORITHMS:
        raise RecipeError(f"quantize.algorithms: unknown algorithm '{name}'", hint=nearest(name, ALGORITHMS))
    cls = ALGORITHMS[name]
    known = {f.name: f for f in dataclasses.fields(cls)}
    for key, value in options.items():
        if key not in known:
            raise RecipeError(f"quantize.algorithms: {name} has no option '{key}'", hint=nearest(key, known))
        _check_type(name, key, value, str(known[key].type))
    made: Algorithm = cls(**options)
    return made


def _check_type(name: str, key: str, value: object, wanted: str) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": number,
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }.get(wanted, True)
    if not fits:
        raise RecipeError(f"quantize.algorithms: expected {wanted} for {name}.{key}, got {value!r}")


def build_algorithms(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, Algorithm]]:
    """Build a recipe's list, by name, in its order.

    Raises:
        RecipeError: as ``build_algorithm``; or one that places the grids anew comes after one that works on them.
    """
    made = [(str(config["type"]), build_algorithm(config)) for config in configs]
    first = next((name for name, _ in made if name not in EQUALIZING), None)
    seen = False
    for name, _ in made:
        seen = seen or name not in EQUALIZING
        if seen and name in EQUALIZING:
            raise RecipeError(
                f"quantize.algorithms: {name} places the grids anew and would undo {first}",
                hint=f"put {name} before {first}",
            )
    return made


def improve(draft: Draft, algorithms: Sequence[tuple[str, Algorithm]], work: Work) -> Draft:
    """A copy of ``draft`` after all of ``algorithms``, in order."""
    if not algorithms:
        return draft
    changed = draft.copied()
    for name, algorithm in algorithms:
        work.tell(name)
        algorithm.apply(changed, work)
    return changed
