"""A draft is changed without its origin, its state comes back as it was, and operations go back to float."""

from __future__ import annotations

import io

import torch
from torch import nn

from razordeploy.quantization.algorithms.bias_correction import BiasCorrection
from razordeploy.quantization.algorithms.equalization import CrossLayerEqualization
from razordeploy.quantization.algorithms.layers import layers
from razordeploy.quantization.algorithms.learned import AdaRound
from razordeploy.quantization.draft import draft_state, restored_draft
from tests.quantization.algorithms.conftest import draft_sqnr, images, make_draft, outputs


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5))


def changed_draft():
    model, x = net(), images(64)
    plain, work = make_draft(model, x, bits=3)
    draft = plain.copied()
    for algorithm in (CrossLayerEqualization(), AdaRound(steps=20), BiasCorrection()):
        algorithm.apply(draft, work)
    return model, x, plain, draft, work


def test_a_copy_leaves_its_origin_alone():
    model, x, plain, draft, _ = changed_draft()
    assert draft.changed(plain) and not plain.own
    assert torch.equal(outputs(plain, x, simulated=False), model(x))
    assert [n.name for n in plain.captured.graph.nodes] != [n.name for n in draft.captured.graph.nodes]


def test_state_comes_back_from_a_file():
    _, x, plain, draft, _ = changed_draft()
    buffer = io.BytesIO()
    torch.save(draft_state(draft), buffer)
    buffer.seek(0)
    again = restored_draft(plain, torch.load(buffer, weights_only=True))
    assert torch.equal(outputs(again, x), outputs(draft, x))
    assert torch.equal(outputs(again, x, simulated=False), outputs(draft, x, simulated=False))


def test_float_operations_have_the_float_weights():
    model, x, plain, draft, work = changed_draft()
    reverted = draft.copied()
    first = next(layers(draft.captured))
    reverted.keep_float({first.name: "for a test"}, work.batches())
    reason = {op.node: op.reason for op in reverted.plan.ops}[first.name]
    assert reason == "for a test"
    first = next(layers(reverted.captured))
    assert torch.equal(reverted.constant(first.weight), reverted.float_constant(first.weight))
    alone = plain.copied()
    alone.keep_float({first.name: "for a test"}, work.batches())
    assert draft_sqnr(alone, model, x) > draft_sqnr(plain, model, x)
    everything = draft.copied()
    everything.keep_float({layer.name: "all" for layer in layers(draft.captured)}, work.batches())
    assert not any(op.int8 for op in everything.plan.ops)
