"""Every dynamic operation: sliced, masked and made plain it gives the same numbers and gradients."""

from __future__ import annotations

import copy

import pytest
import torch

from razordeploy.subnet.mutables.channel import SimpleMutableChannel
from razordeploy.subnet.mutables.container import MutableChannelContainer


def channel(mask):
    """A mutable that keeps the ones of ``mask``, a string of 0 and 1."""
    mutable = SimpleMutableChannel(len(mask))
    mutable.current_choice = [int(kept) for kept in mask]
    return mutable


def register(op, **masks):
    """Register a container for each attribute, as the channel units do."""
    for attr, mask in masks.items():
        container = MutableChannelContainer(len(mask))
        container.register_mutable(channel(mask), 0, len(mask))
        op.register_mutable_attr(attr, container)
    return op


def bools(mask):
    return torch.tensor([kept == "1" for kept in mask])


@pytest.fixture
def check():
    """Compare a plain operation's dynamic form with a slice of it, given by hand."""

    def run(op, plain, x, in_mask, out_mask, in_dim=1, out_dim=1, atol=1e-6):
        keep_in, keep_out = (torch.nonzero(bools(mask)).flatten() for mask in (in_mask, out_mask))
        # Zeroed instead of sliced: the oracle that needs no slicing, wherever no statistic runs over channels.
        sliced_x = x.index_select(in_dim, keep_in)
        sliced = op(sliced_x)

        static = copy.deepcopy(op).to_static_op()
        assert type(static) is plain
        assert torch.allclose(static(sliced_x), sliced, atol=atol)
        assert static.training is op.training

        op.masked = True
        full = op(x)
        op.masked = False
        torch.testing.assert_close(full.index_select(out_dim, keep_out), sliced, atol=atol, rtol=0)
        dead = torch.nonzero(~bools(out_mask)).flatten()
        assert full.index_select(out_dim, dead).abs().sum() == 0
        _check_gradients(op, static, sliced_x)
        return sliced, static

    return run


def _check_gradients(op, static, x):
    """Each gradient of the plain operation is a slice of the dynamic one's, whose other entries are zero."""
    for module in (op, static):
        module.zero_grad()
        module(x).square().sum().backward()
    theirs = dict(op.named_parameters())
    for name, parameter in static.named_parameters():
        full = theirs[name].grad
        assert full.shape == theirs[name].shape
        ours, parts = parameter.grad.flatten().sort().values, full[full != 0].sort().values
        torch.testing.assert_close(ours[ours != 0], parts, atol=1e-4, rtol=1e-4)
