"""Which fake quant trains each group of a plan, by what the recipe's qconfigs say."""

from __future__ import annotations

from typing import Any

import torch

from razordeploy.capture.graph import CapturedModel, module_path
from razordeploy.config.qconfig import QConfig, QuantizeConfig
from razordeploy.quantization.ends import ends_of
from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.fake_quants.table import build_fake_quant
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.quantization.plan import QParams, QuantPlan, QuantPoint
from razordeploy.quantization.qat.graph import MakeFakeQuant
from razordeploy.quantization.qparams import representable_range

DEFAULT = "LearnableFakeQuantize"
"""Learned scales that start from calibration."""
WIDE = "FakeQuantize"
"""The default above 8 bits, where a step of the optimizer would be many times the scale."""
_OBSERVED = {"weight": "MinMaxObserver", "activation": "MovingAverageMinMaxObserver"}
"""Range estimators of fake quants that observe while they train: those that a batch costs little."""


def chosen_fake_quants(captured: CapturedModel, plan: QuantPlan, config: QuantizeConfig) -> MakeFakeQuant:
    """Return what builds the fake quant of a group, its scale set to what calibration gave.

    ``w_fake_quant``, ``a_fake_quant`` and the observers are those of the first operation that reads the group and has
    an override of them; else the global ones.

    Raises:
        RecipeError (from the function): the recipe names no fake quant, or gives one what it does not take.
    """
    nodes = {n.name: n for n in captured.graph.nodes}

    readers: dict[str, list[str]] = {}
    for point in plan.points:
        readers.setdefault(point.group, []).extend(point.users)

    def asked(point: QuantPoint) -> QConfig:
        for user in readers[point.group]:
            kind = kind_of(nodes[user]) if user in nodes else None
            if kind is None:
                continue
            path, ends = module_path(nodes[user]), ends_of(nodes[user])
            wanted = config.at_ends(config.for_op(path, kind), ends)
            if wanted != config.global_qconfig:
                return wanted
        return config.global_qconfig

    def make(point: QuantPoint, start: QParams) -> FakeQuantizeBase:
        wanted = asked(point)
        is_weight = point.kind == "weight"
        fake_quant = (wanted.w_fake_quant if is_weight else wanted.a_fake_quant) or _default(point)
        observer: Any = (wanted.w_observer if is_weight else wanted.a_observer) or _OBSERVED[point.kind]
        made = build_fake_quant(fake_quant, scheme=point.scheme)
        if isinstance(made, LearnableFakeQuantize):
            made.per_sample = not is_weight
        elif made.observer.needs_data:
            made = build_fake_quant(fake_quant, scheme=point.scheme, observer=observer)
            made.observes_anew = is_weight
            _start_from(made, start)
        if made.observer.needs_data:
            made.set_qparams(start)
        return made

    return make


def _default(point: QuantPoint) -> str:
    return DEFAULT if point.scheme.bits <= 8 else WIDE


def _start_from(made: FakeQuantizeBase, start: QParams) -> None:
    """Let a running range begin at the calibrated one."""
    low, high = representable_range(start.scale, start.zero_point, start.scheme)
    if low.ndim:
        shape = [1] * (start.scheme.ch_axis or 0)
        made.observer.observe(torch.stack([low, high], -1).reshape(*shape, len(low), 2))
    else:
        made.observer.observe(torch.stack([low, high]))
