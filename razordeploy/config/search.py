"""The ``search`` section of a recipe; mmrazor's search loops are read as one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError, nearest

LATENCY = "latency@"
_COSTS = ("macs", "flops", "params")
_OPTIONS: dict[str, tuple[str, ...]] = {
    "evolution": (
        *("max_epochs", "num_candidates", "top_k", "num_mutation", "num_crossover"),
        *("mutation_prob", "crossover_prob", "init_candidates"),
    ),
    "random": ("max_candidates", "batch"),
    "greedy": ("targets", "resource"),
}
"""Search -> keys that only it has."""
_SHARED = ("type", "constraints", "score", "split", "num_samples", "recalibrate", "latency", "predictor", "timeout_s")
_LOOPS = {"EvolutionSearchLoop": "evolution", "AutoSlimGreedySearchLoop": "greedy"}
_LATENCY_KEYS = ("backends", "samples", "seconds", "threads")
_PREDICTOR_KEYS = ("type", "train_samples", "verify", "encoding")


@dataclass(frozen=True, kw_only=True)
class LatencyConfig:
    """Latency of int8 engines, measured on some subnets and predicted for the others."""

    backends: tuple[str, ...] = ()
    """Empty: those that constraints name."""
    samples: int = 24
    """Subnets that an engine is built of, once for a space."""
    seconds: float = 0.5
    """Time of the measurement of one engine."""
    threads: int = 0
    """Engine threads; 0: the engine's own choice."""


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    """A model of the score that takes the place of most evaluations."""

    type: str = "GaussProcessHandler"
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of that handler."""
    train_samples: int = 64
    """Random candidates that are evaluated to fit it."""
    verify: int = 16
    """Candidates, the best by prediction, that are evaluated at the end."""
    encoding: str = "onehot"
    """``onehot`` or ``normal``."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What is searched for, and how."""

    type: str = "evolution"
    """``evolution``, ``random`` or ``greedy``."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of that search."""
    constraints: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Range by indicator: ``macs``, ``flops`` (twice the multiply-accumulates) and ``params`` in millions,
    ``latency@<backend>`` in milliseconds."""
    shares: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    """Bounds that were given in percent of the largest subnet, as shares of 1; None: that bound was not."""
    score: str | None = None
    """Figure of the metric that candidates are compared by; None: ``top1``, of detectors ``bbox_mAP``."""
    split: str = "test"
    """Part of the recipe's ``data`` that candidates are scored on."""
    num_samples: int | None = None
    """Samples of it; None: all."""
    recalibrate: int | None = None
    """Samples that batch norms are recalibrated on; None: ``calibration.num_samples``; 0: none."""
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    predictor: PredictorConfig | None = None

    @property
    def latency_backends(self) -> tuple[str, ...]:
        """Backends whose latency is measured."""
        named = [name.removeprefix(LATENCY) for name in self.constraints if name.startswith(LATENCY)]
        return tuple(dict.fromkeys([*self.latency.backends, *named]))

    @classmethod
    def of_recipe(cls, config: Mapping[str, Any], file: str) -> SearchConfig | None:
        """Read the section ``search`` of a recipe, or else the search loop in its ``train_cfg``; None: it has neither.

        Raises:
            RecipeError: an unknown key or name, or a value of the wrong type.
        """
        if config.get("search") is not None:
            return cls.parse(config["search"], file)
        loop = config.get("train_cfg")
        if not isinstance(loop, Mapping):
            return None
        kind = str(loop.get("type", "")).rpartition(".")[2]
        return cls.parse(_of_loop(loop, kind), file, "train_cfg") if kind in _LOOPS else None

    @classmethod
    def parse(cls, value: object, file: str, where: str = "search") -> SearchConfig:
        """Read ``value``, the key ``where`` of ``file``."""
        values = {"type": value} if isinstance(value, str) else value
        kind = values.get("type", cls.type) if isinstance(values, Mapping) else cls.type
        kind = _LOOPS.get(str(kind).rpartition(".")[2], kind)
        if kind not in _OPTIONS:
            raise RecipeError(f"{file}: unknown search {kind!r} in '{where}'", hint=nearest(str(kind), _OPTIONS))
        section = Section.of(values, file, where, (*_SHARED, *_OPTIONS[kind]))
        ranges, shares = _constraints(section)
        options = {key: section.values[key] for key in _OPTIONS[kind] if section.values.get(key) is not None}
        _check_options(section, options)
        if kind == "greedy" and "targets" not in options:
            raise RecipeError(f"{file}: a greedy search needs '{where}.targets'", hint="targets=[500, 300]")
        predictor = section.values.get("predictor")
        if predictor is not None and kind == "greedy":
            raise section.error("predictor", "no predictor with a greedy search")
        return cls(
            type=kind,
            options=options,
            constraints=ranges,
            shares=shares,
            score=section.string("score"),
            split=section.string("split") or cls.split,
            num_samples=section.integer("num_samples", low=1),
            recalibrate=section.integer("recalibrate", low=0),
            latency=_latency(section),
            predictor=None if predictor is None else _predictor(predictor, file, f"{where}.predictor"),
        )


def _constraints(
    section: Section,
) -> tuple[dict[str, tuple[float, float]], dict[str, tuple[float | None, float | None]]]:
    value = section.values.get("constraints") or {}
    if not isinstance(value, Mapping):
        raise section.error("constraints", "a dict such as dict(macs=(0, 300))")
    ranges: dict[str, tuple[float, float]] = {}
    shares: dict[str, tuple[float | None, float | None]] = {}
    inner = Section(values=value, file=section.file, where=f"{section.where}.constraints")
    for name, bounds in value.items():
        if name not in _COSTS and not (str(name).startswith(LATENCY) and len(str(name)) > len(LATENCY)):
            raise RecipeError(
                f"{section.file}: unknown constraint '{name}' in '{section.where}.constraints'",
                hint=nearest(str(name), (*_COSTS, f"{LATENCY}openvino")),
            )
        pair = tuple(bounds) if isinstance(bounds, list | tuple) else (0, bounds)
        if len(pair) != 2:
            raise inner.error(name, "one highest value or a range (lowest, highest)")
        numbers = [_bound(bound, name, inner) for bound in pair]
        low, high = (math.inf if is_share else number for number, is_share in numbers)
        ranges[name] = (-math.inf if numbers[0][1] else low, high)
        if any(is_share for _, is_share in numbers):
            share_low, share_high = (number if is_share else None for number, is_share in numbers)
            shares[name] = (share_low, share_high)
        if ranges[name][0] > ranges[name][1]:
            raise inner.error(name, "a range (lowest, highest)")
    return ranges, shares


_SCALES = {"": 1.0, "K": 1e-3, "M": 1.0, "G": 1e3}
"""Suffix -> millions, for a bound that is text; without one it is in millions already."""


def _bound(value: object, name: str, section: Section) -> tuple[float, bool]:
    """A bound, and whether it is a share of the largest subnet."""
    if isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
        return float(value), False
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|ms|[KMG]?)\s*", value)
        if found and found[2] == "%":
            return float(found[1]) / 100, True
        if found and (found[2] == "ms") <= name.startswith(LATENCY) and (found[2] in ("", "ms") or name in _COSTS):
            return float(found[1]) * _SCALES.get(found[2], 1.0), False
    raise section.error(name, "numbers, or text such as '300M' or '60%',")


def _check_options(section: Section, options: Mapping[str, Any]) -> None:
    for key in options:
        if key.endswith("_prob"):
            if (section.number(key, low=0.0) or 0.0) > 1:
                raise section.error(key, "a probability from 0 to 1")
        elif key not in ("targets", "init_candidates", "resource"):
            section.integer(key, low=0 if key in ("num_mutation", "num_crossover") else 1)
    targets = options.get("targets", [1])
    many = targets if isinstance(targets, list | tuple) else [targets]
    if not many or not all(isinstance(t, int | float) and not isinstance(t, bool) and t > 0 for t in many):
        raise section.error("targets", "positive numbers such as [500, 300], in millions,")
    if options.get("resource", "macs") not in _COSTS:
        raise section.error("resource", f"one of {', '.join(_COSTS)}")
    given = options.get("init_candidates", [])
    if not isinstance(given, list | tuple) or not all(isinstance(one, Mapping) for one in given):
        raise section.error("init_candidates", "a list of subnets")


def _latency(section: Section) -> LatencyConfig:
    value = section.values.get("latency")
    if value is None:
        return LatencyConfig()
    inner = Section.of(value, section.file, f"{section.where}.latency", _LATENCY_KEYS)
    seconds = inner.number("seconds", low=0.0)
    return LatencyConfig(
        backends=inner.strings("backends") or (),
        samples=inner.integer("samples", low=4) or LatencyConfig.samples,
        seconds=seconds or LatencyConfig.seconds,
        threads=inner.integer("threads", low=0) or 0,
    )


def _predictor(value: object, file: str, where: str) -> PredictorConfig:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{file}: expected a dict for '{where}', got {value!r}")
    own = {key: item for key, item in value.items() if key in _PREDICTOR_KEYS}
    section = Section(values=own, file=file, where=where)
    encoding = section.string("encoding") or PredictorConfig.encoding
    if encoding not in ("onehot", "normal"):
        raise section.error("encoding", "'onehot' or 'normal'")
    return PredictorConfig(
        type=section.string("type") or PredictorConfig.type,
        options={key: item for key, item in value.items() if key not in own},
        train_samples=section.integer("train_samples", low=4) or PredictorConfig.train_samples,
        verify=section.integer("verify", low=1) or PredictorConfig.verify,
        encoding=encoding,
    )


_IGNORED = ("dataloader", "evaluator", "max_keep_ckpts", "resume_from", "calibrate_dataloader", "estimator_cfg")
"""Keys of the loops whose place is taken: data is the recipe's, a search resumes by itself."""


def _of_loop(loop: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A ``search`` section of a loop's arguments. Its FLOPs are multiply-accumulates, in millions."""
    section = {key: value for key, value in loop.items() if key not in _IGNORED and value is not None}
    section["type"] = _LOOPS[kind]
    if "constraints_range" in section:
        ranges = dict(section.pop("constraints_range"))
        if "flops" in ranges:
            ranges["macs"] = ranges.pop("flops")
        section["constraints"] = ranges
    elif kind == "EvolutionSearchLoop":
        section["constraints"] = {"macs": (0.0, 330.0)}
    if "target_flops" in section:
        section["targets"] = section.pop("target_flops")
    if "score_key" in section:
        section["score"] = str(section.pop("score_key")).rpartition("/")[2].replace("top-", "top")
    if "calibrate_sample_num" in section:
        number = section.pop("calibrate_sample_num")
        if number != -1:
            section["recalibrate"] = number
    if "predictor_cfg" in section:
        predictor = dict(section.pop("predictor_cfg"))
        handler = dict(predictor.get("handler_cfg", {}))
        handler["type"] = str(handler.get("type", PredictorConfig.type)).rpartition(".")[2]
        for key, name in (("train_samples", "train_samples"), ("encoding_type", "encoding")):
            if key in predictor:
                handler[name] = predictor[key]
        section["predictor"] = handler
    return section
