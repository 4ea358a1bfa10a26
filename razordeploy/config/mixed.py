"""The ``quantize.mixed_precision`` section: which widths, within which budget, by which measure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError

CRITERIA = ("hessian", "kl")
BUDGETS = ("size_bytes", "mean_bits", "bops", "latency_ms")
_KEYS = ("bits", "criterion", "activations", "samples", "probes", "ms_per_gmac", *BUDGETS)


@dataclass(frozen=True, kw_only=True)
class MixedPrecisionConfig:
    """Bits of each layer's weight, chosen so that their sum of harms is least within a budget."""

    budget: str
    """One of ``BUDGETS``: bytes of the quantized weights; bits per weight; bit operations (multiply-accumulates of one
    sample times both operands' bits); or milliseconds by ``ms_per_gmac``."""
    limit: float
    """Most of it, in its unit."""
    bits: tuple[int, ...] = (2, 3, 4, 6, 8)
    """Widths to choose from, rising."""
    criterion: str = "hessian"
    """``hessian``: mean curvature times squared rounding error; ``kl``: divergence of the outputs."""
    activations: bool = False
    """True: a layer's input gets the bits of its weight; False: inputs keep the recipe's."""
    samples: int = 32
    """Calibration samples that harms are measured on."""
    probes: int = 8
    """Random vectors a batch for the Hessian's trace."""
    ms_per_gmac: Mapping[int, float] | None = None
    """Bits -> milliseconds for 1e9 multiply-accumulates, measured where the model is to run."""

    @classmethod
    def parse(cls, value: object, file: str) -> MixedPrecisionConfig | None:
        """Read the section of the recipe ``file``; None where there is none."""
        if value is None:
            return None
        section = Section.of(value, file, "quantize.mixed_precision", _KEYS)
        given = [name for name in BUDGETS if section.values.get(name) is not None]
        if len(given) != 1:
            raise RecipeError(
                f"{file}: expected one budget in 'quantize.mixed_precision', got {', '.join(given) or 'none'}",
                hint=f"give one of {', '.join(BUDGETS)}",
            )
        limit = section.number(given[0], low=0.0)
        bits = _bits(section)
        criterion = section.string("criterion") or "hessian"
        if criterion not in CRITERIA:
            raise section.error("criterion", " or ".join(map(repr, CRITERIA)))
        return cls(
            budget=given[0],
            limit=0.0 if limit is None else limit,
            bits=bits,
            criterion=criterion,
            activations=bool(section.boolean("activations")),
            samples=section.integer("samples", low=1) or cls.samples,
            probes=section.integer("probes", low=1) or cls.probes,
            ms_per_gmac=_times(section, bits, given[0]),
        )


def _bits(section: Section) -> tuple[int, ...]:
    value = section.values.get("bits")
    if value is None:
        return MixedPrecisionConfig.bits
    if not isinstance(value, list | tuple) or not value or not all(type(b) is int and 1 <= b <= 16 for b in value):
        raise section.error("bits", "a list of widths from 1 to 16")
    return tuple(sorted(set(value)))


def _times(section: Section, bits: tuple[int, ...], budget: str) -> Mapping[int, float] | None:
    value: Any = section.values.get("ms_per_gmac")
    if budget != "latency_ms":
        return None
    if not isinstance(value, Mapping) or any(not isinstance(value.get(b), int | float) for b in bits):
        raise RecipeError(
            f"{section.file}: a budget of latency_ms needs 'ms_per_gmac' for every width of {list(bits)}, "
            f"got {value!r}",
            hint="ms_per_gmac={4: 0.5, 8: 1.0}: milliseconds for 1e9 multiply-accumulates on the target",
        )
    return {b: float(value[b]) for b in bits}
