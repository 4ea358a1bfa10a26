"""Drafts of small networks, and the figures that algorithms are judged by."""

from __future__ import annotations

import math

import pytest
import torch

from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve


def make_draft(model, inputs, *, bits=8, backend="academic", a_bits=8, **quantize):
    """``(draft, work)`` of ``model`` calibrated on ``inputs``, ``(N, ...)``."""
    captured = capture(model.eval(), (inputs[:2],))
    if backend == "academic":
        grids = {"w_qscheme": {"bit": bits}, "a_qscheme": {"bit": a_bits}}
        grids["w_qscheme"]["per_channel"] = quantize.pop("per_channel", True)
        quantize.setdefault("global_qconfig", grids)
    found = find_backend(backend)
    settings = settings_for(found.spec, QuantizeConfig.parse(quantize, "test"))

    def replan(graph, kept):
        def without(node, kind, rule):
            from dataclasses import replace

            asked = settings(node, kind, rule)
            return replace(asked, skip=asked.skip or kept.get(node.name))

        return found.plan(graph, without)

    plan = replan(captured, {})
    work = Work(inputs=(inputs,), batch=32)
    params = resolve(captured, plan, collect(captured, [plan], work.batches()))
    return Draft(captured=captured, plan=plan, params=params, replan=replan), work


def outputs(draft, inputs, *, simulated=True):
    module = simulate(draft.captured, draft.plan, draft.params) if simulated else draft.float_model().graph_module
    with torch.inference_mode():
        return module(inputs)


def sqnr(expected, found):
    return float(10 * torch.log10(expected.double().square().sum() / (expected - found).double().square().sum()))


def draft_sqnr(draft, model, inputs):
    """SQNR of a draft's simulation against the model, dB."""
    with torch.inference_mode():
        expected = model.eval()(inputs)
    found = sqnr(expected, outputs(draft, inputs))
    assert math.isfinite(found)
    return found


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def images(count, seed=1, channels=3, size=8):
    """Smooth images ``(N, C, size, size)``, whose neighbouring pixels go together as those of photographs do."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, channels, 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=True)
    return smooth + 0.05 * torch.randn(count, channels, size, size, generator=generator)
