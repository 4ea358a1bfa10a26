"""The fake quantization modules that a recipe may name, and how one is built from a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy.config.scheme import QScheme
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.fake_quants.fake_quantize import (
    FakeQuantize,
    FixedQParamsFakeQuantize,
    FusedMovingAvgObsFakeQuantize,
)
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.fake_quants.pact import PACTFakeQuantize
from razordeploy.quantization.observers.base import Observer
from razordeploy.quantization.observers.table import construct, lookup

FAKE_QUANTS: dict[str, type[FakeQuantizeBase]] = {
    "FakeQuantize": FakeQuantize,
    "FakeQuantizeBase": FakeQuantizeBase,
    "FixedQParamsFakeQuantize": FixedQParamsFakeQuantize,
    "FusedMovingAvgObsFakeQuantize": FusedMovingAvgObsFakeQuantize,
    "LearnableFakeQuantize": LearnableFakeQuantize,
    "PACTFakeQuantize": PACTFakeQuantize,
}


def build_fake_quant(
    config: str | Mapping[str, Any],
    *,
    scheme: QScheme,
    observer: Observer | str | Mapping[str, Any] | None = None,
) -> FakeQuantizeBase:
    """Build a fake quantization module from its name, or from ``{"type": name, keyword: value}``.

    ``observer`` overrides the one of the mapping when it is not None. Raises ``RecipeError`` for an unknown name or
    keyword, naming the nearest known one.
    """
    cls, keywords = lookup(config, FAKE_QUANTS, "fake quant")
    keywords["scheme"] = scheme
    if observer is not None:
        keywords["observer"] = observer
    module: FakeQuantizeBase = construct(cls, keywords)
    return module
