"""How a channel mutator is told to find its units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError, nearest

TRACED, CONFIG, PREDEFINED = "traced", "config", "predefined"
# Names of mmrazor's configs. Both of its tracers select ours.
WAYS = {
    "ChannelAnalyzer": TRACED,
    "BackwardTracer": TRACED,
    "FxTracer": TRACED,
    "PruneTracer": TRACED,
    "Config": CONFIG,
    "Predefined": PREDEFINED,
}
TRACERS = ("BackwardTracer", "FxTracer")
FORWARDS = ("auto", "slice", "mask")
# 'loss_calculator' and 'num_samples' steer mmrazor's own tracers; there is nothing to steer here.
_KEYS = ("type", "_scope_", "demo_input", "tracer_type", "from_cfg", "forward", "loss_calculator", "num_samples")
_DEMO_KEYS = ("type", "_scope_", "scope", "input_shape", "training", "kwargs")


@dataclass(frozen=True, kw_only=True)
class Parse:
    """A ``parse_cfg``, read."""

    way: str
    """``traced``: units are found in the captured graph; ``config``: every unit's channels are given; ``predefined``:
    the model has dynamic operations and channel mutables of its own."""
    demo_input: Any
    """Shape (N, C, H, W), or the inputs themselves; None: none is needed."""
    forward: str
    """How dynamic operations run: ``slice``, ``mask``, or ``auto``: slice where the model's own code allows it."""


def read_parse_cfg(parse_cfg: object) -> Parse:
    """Read a ``parse_cfg`` of mmrazor's form.

    Raises:
        ModelError: an unknown type, key or tracer, or a demo input that is none.
    """
    if not isinstance(parse_cfg, Mapping) or "type" not in parse_cfg:
        raise ModelError(f"expected parse_cfg to be a dict with a 'type', got {parse_cfg!r}")
    for key in parse_cfg:
        if key not in _KEYS:
            raise ModelError(f"unknown key '{key}' in parse_cfg", hint=nearest(str(key), _KEYS))
    kind = str(parse_cfg["type"]).rpartition(".")[2]
    if kind not in WAYS:
        raise ModelError(f"unknown parse_cfg type '{parse_cfg['type']}'", hint=nearest(kind, WAYS))
    tracer = parse_cfg.get("tracer_type", TRACERS[0])
    if tracer not in TRACERS:
        raise ModelError(f"unknown tracer_type '{tracer}'", hint=nearest(str(tracer), TRACERS))
    forward = parse_cfg.get("forward", "auto")
    if forward not in FORWARDS:
        raise ModelError(f"expected forward to be one of {FORWARDS}, got {forward!r}")
    return Parse(way=WAYS[kind], demo_input=_demo_input(parse_cfg.get("demo_input")), forward=forward)


def _demo_input(given: Any) -> Any:
    if isinstance(given, Mapping):
        for key in given:
            if key not in _DEMO_KEYS:
                raise ModelError(f"unknown key '{key}' in demo_input", hint=nearest(str(key), _DEMO_KEYS))
        given = given.get("input_shape")
        given = given[0] if isinstance(given, list | tuple) and given and isinstance(given[0], list | tuple) else given
    if given is None or isinstance(given, Tensor):
        return given
    if isinstance(given, list | tuple) and given:
        if all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in given):
            return tuple(given)
        if all(isinstance(value, Tensor) for value in given):
            return tuple(given)
    raise ModelError(f"expected demo_input to be a shape such as (1, 3, 224, 224) or tensors, got {given!r}")


def example_inputs(parse: Parse, model: nn.Module) -> tuple[Tensor, ...] | None:
    """The demo input as tensors on the model's device, the same ones every time; None where there is none."""
    demo = parse.demo_input
    if demo is None:
        return None
    where = next(model.parameters(), torch.empty(0))
    if isinstance(demo, Tensor):
        return (demo.to(where.device),)
    if isinstance(demo[0], Tensor):
        return tuple(value.to(where.device) for value in demo)
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(demo, generator=generator).to(where),)


def plain_parse_cfg(parse_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """``parse_cfg`` as a subnet file holds it: tensors become their shapes."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            return list(value.shape)
        if isinstance(value, Mapping):
            return {str(key): plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            shapes = [plain(item) for item in value]
            return shapes[0] if len(value) == 1 and isinstance(value[0], Tensor) else shapes
        return value

    return {key: plain(value) for key, value in parse_cfg.items() if key != "from_cfg"}
