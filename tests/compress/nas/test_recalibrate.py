from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from razordeploy.compress.nas.recalibrate import recalibrate
from razordeploy.data.batch import Batch
from razordeploy.subnet.dynamic_ops.batchnorm import DynamicBatchNorm2d
from razordeploy.subnet.dynamic_ops.conv import DynamicConv2d
from razordeploy.subnet.mutables.channel import OneShotMutableChannel
from razordeploy.subnet.mutables.container import MutableChannelContainer


def _batches(sizes, scale=3.0):
    # Each batch has a mean of its own, so that the variance between batches counts.
    return [Batch((torch.randn(n, 3, 5, 5) * (1 + i) + scale * i,), None) for i, n in enumerate(sizes)]


def test_statistics_are_those_of_all_samples_together():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    before = copy.deepcopy(model.state_dict())
    batches = _batches([7, 1, 4])
    assert recalibrate(model, batches) == 12
    with torch.no_grad():
        seen = model[0](torch.cat([batch.inputs[0] for batch in batches])).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean, seen.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model[1].running_var, seen.var(1, unbiased=False), rtol=1e-4, atol=1e-5)
    changed = {"1.running_mean", "1.running_var"}
    assert {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])} == changed
    assert not any(module.training for module in model.modules())
    assert model[1].momentum == 0.1


def test_it_reads_no_more_than_asked_and_does_nothing_without_norms():
    read = []

    def stream():
        for batch in _batches([4, 4, 4]):
            read.append(len(batch))
            yield batch

    assert recalibrate(nn.Sequential(nn.BatchNorm2d(3)), stream(), num_samples=8) == 8
    assert len(read) <= 3
    assert recalibrate(nn.Conv2d(3, 3, 1), stream()) == 0


def test_a_failing_batch_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)).train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError):
        recalibrate(model, [*_batches([4]), Batch((torch.zeros(2, 3, 1, 1),), None)])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert model[0].momentum == 0.1


def test_an_elastic_norm_keeps_what_is_not_chosen():
    width = OneShotMutableChannel(8, [4, 8])
    model = nn.Sequential(DynamicConv2d(3, 8, 3), DynamicBatchNorm2d(8)).eval()
    for op, is_output in ((model[0], True), (model[1], True)):
        MutableChannelContainer.register_mutable_channel_to_module(op, width, is_output)
    width.current_choice = 4
    recalibrate(model, _batches([6]))
    assert bool((model[1].running_mean[:4] != 0).all())
    assert bool((model[1].running_mean[4:] == 0).all())
