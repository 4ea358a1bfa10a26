"""The ``deploy`` and ``calibration`` sections of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError

_METRICS = ("top1",)
_DEPLOY_KEYS = (
    "backends",
    "input_shape",
    "input_shapes",
    "input_names",
    "output_names",
    "dynamic_batch",
    "max_drop",
    "min_cosine",
    "batch_size",
    "max_batch",
    "metric",
)


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """What is made of the model, and the limits it is held to."""

    backends: tuple[str, ...] = ()
    """Names of backends; empty means that the caller names them."""
    input_shapes: tuple[tuple[int, ...], ...] | None = None
    """Shape of every input without the batch, (C, H, W); None means guessed from the data."""
    input_names: tuple[str, ...] | None = None
    output_names: tuple[str, ...] | None = None
    dynamic_batch: bool = True
    max_drop: float = 1.0
    """Largest fall of the metric from float to engine, in points."""
    min_cosine: float = 0.99
    """Of the engine's outputs to the float model's: what a recovery aims at where there are no labels."""
    batch_size: int = 1
    """Batch of the latency measurement, and what an engine for a range of batches is tuned for."""
    max_batch: int = 32
    """Largest batch of an engine that is built for a range of them (TensorRT)."""
    metric: str = "top1"
    """``top1``, or ``pkg.module:function``."""

    @classmethod
    def parse(cls, value: object, file: str) -> DeployConfig:
        """Read the ``deploy`` section of the recipe ``file``."""
        section = Section.of(value, file, "deploy", _DEPLOY_KEYS)
        shapes = _input_shapes(section)
        names = section.strings("input_names")
        if shapes is not None and names is not None and len(names) != len(shapes):
            raise RecipeError(f"{file}: 'deploy' has {len(names)} input_names for {len(shapes)} input shapes")
        dynamic, drop = section.boolean("dynamic_batch"), section.number("max_drop", low=0.0)
        cosine = section.number("min_cosine", low=0.0, high=1.0)
        return cls(
            backends=_backends(section),
            input_shapes=shapes,
            input_names=names,
            output_names=section.strings("output_names"),
            dynamic_batch=True if dynamic is None else dynamic,
            max_drop=1.0 if drop is None else drop,
            min_cosine=cls.min_cosine if cosine is None else cosine,
            batch_size=section.integer("batch_size", low=1) or 1,
            max_batch=section.integer("max_batch", low=1) or 32,
            metric=_metric(section),
        )


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    """Which samples the ranges are observed on."""

    num_samples: int = 300
    batch_size: int | None = None
    """Samples a step; None means the dataloader's own."""
    split: str = "train"
    """Part of the data that is calibrated on."""

    @classmethod
    def parse(cls, value: object, file: str) -> CalibrationConfig:
        """Read the ``calibration`` section of the recipe ``file``."""
        section = Section.of(value, file, "calibration", ("num_samples", "batch_size", "split"))
        return cls(
            num_samples=section.integer("num_samples", low=1) or cls.num_samples,
            batch_size=section.integer("batch_size", low=1),
            split=section.string("split") or cls.split,
        )


def _backends(section: Section) -> tuple[str, ...]:
    names = section.strings("backends") or ()
    split = tuple(part.strip() for name in names for part in name.split(","))
    if not all(split) or len(set(split)) != len(split):
        raise section.error("backends", "a list of different backend names")
    return split


def _metric(section: Section) -> str:
    metric = section.string("metric") or "top1"
    if metric not in _METRICS and not is_reference(metric):
        raise section.error("metric", f"{' or '.join(repr(name) for name in _METRICS)} or 'pkg.module:function'")
    return metric


def is_reference(name: str) -> bool:
    """Tell whether ``name`` has the form ``pkg.module:attribute``."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in f"{module}.{attribute}".split("."))


def _input_shapes(section: Section) -> tuple[tuple[int, ...], ...] | None:
    one, many = section.values.get("input_shape"), section.values.get("input_shapes")
    if one is not None and many is not None:
        raise RecipeError(f"{section.file}: 'deploy' has both input_shape and input_shapes", hint="keep one")
    if one is not None:
        return (_shape(one, section, "input_shape"),)
    if many is None:
        return None
    if not _is_list(many) or not many or not all(_is_list(shape) for shape in many):
        raise section.error("input_shapes", "a list of shapes such as [(3, 32, 32)]")
    return tuple(_shape(shape, section, "input_shapes") for shape in many)


def _shape(value: object, section: Section, key: str) -> tuple[int, ...]:
    if not _is_list(value) or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value):
        raise section.error(key, "positive integers such as (3, 32, 32)")
    shape: tuple[int, ...] = tuple(value)
    if len(shape) == 4 and shape[0] == 1:
        # mmrazor's input_shapes has the batch; taken literally here it would make a five-dimensional input.
        raise section.error(key, f"a shape without the batch, {shape[1:]},")
    return shape


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list | tuple)
