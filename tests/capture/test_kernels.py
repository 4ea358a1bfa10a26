"""Sums of kernels, against the sum of the convolutions in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from razordeploy.capture.kernels import Kernel, added, can_add, diagonal, rounding_db

_RUN = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _kernel(sizes, padding, *, dilation=1, stride=1, groups=1, channels=(4, 4), sign=1, bias=True):
    rank = len(sizes)
    return Kernel(
        weight=torch.randn(channels[1], channels[0] // groups, *sizes, dtype=torch.float64),
        bias=torch.randn(channels[1], dtype=torch.float64) if bias else None,
        sign=sign,
        stride=(stride,) * rank,
        padding=tuple(padding),
        dilation=(dilation,) * rank,
        groups=groups,
    )


def _run(kernel, x):
    if not kernel.stride:  # a linear layer, in groups where it is a diagonal
        return kernel.sign * F.conv1d(x[..., None], kernel.weight[..., None], kernel.bias, groups=kernel.groups)[..., 0]
    options = {key: getattr(kernel, key) for key in ("stride", "padding", "dilation", "groups")}
    return kernel.sign * _RUN[len(kernel.stride)](x, kernel.weight, kernel.bias, **options)


_SUMS = {
    "3 and 1": ([_kernel((3, 3), (1, 1)), _kernel((1, 1), (0, 0))], (3, 3), (1, 1), 1),
    "stride": ([_kernel((1, 1), (0, 0), stride=2), _kernel((3, 3), (1, 1), stride=2)], (3, 3), (1, 1), 1),
    "minus": ([_kernel((3, 3), (1, 1)), _kernel((3, 3), (1, 1), sign=-1, bias=False)], (3, 3), (1, 1), 1),
    "dilated with a point": ([_kernel((3, 3), (2, 2), dilation=2), _kernel((1, 1), (0, 0))], (3, 3), (2, 2), 1),
    "dilated in dense": (
        [_kernel((7, 7), (3, 3), groups=4), _kernel((3, 3), (2, 2), dilation=2, groups=4)],
        (7, 7),
        (3, 3),
        4,
    ),
    "square and strips": (
        [_kernel((3, 3), (1, 1)), _kernel((1, 3), (0, 1)), _kernel((3, 1), (1, 0))],
        (3, 3),
        (1, 1),
        1,
    ),
    "no padding": ([_kernel((3, 3), (0, 0)), _kernel((1, 1), (0, 0))], None, None, None),
    "inside": ([_kernel((5, 5), (1, 1)), _kernel((3, 3), (0, 0))], (5, 5), (1, 1), 1),
    "even": ([_kernel((4, 4), (1, 1)), _kernel((2, 2), (0, 0))], (4, 4), (1, 1), 1),
    "groups in dense": ([_kernel((3, 3), (1, 1)), _kernel((3, 3), (1, 1), groups=2)], (3, 3), (1, 1), 1),
    "groups of both": (
        [_kernel((1, 1), (0, 0), groups=4, channels=(12, 24)), _kernel((1, 1), (0, 0), groups=6, channels=(12, 24))],
        None,
        None,
        None,
    ),
    "depthwise with a factor": (
        [_kernel((3, 3), (1, 1), groups=4), diagonal(torch.rand(4).double(), torch.rand(4).double(), 2)],
        (3, 3),
        (1, 1),
        4,
    ),
    "more channels than groups": (
        [_kernel((3, 3), (1, 1), groups=2, channels=(4, 8)), _kernel((1, 1), (0, 0), groups=2, channels=(4, 8))],
        (3, 3),
        (1, 1),
        2,
    ),
    "1d": ([_kernel((5,), (2,)), diagonal(torch.rand(4).double(), torch.rand(4).double(), 1)], (5,), (2,), 1),
    "3d": ([_kernel((3, 3, 3), (1, 1, 1)), _kernel((1, 3, 1), (0, 1, 0))], (3, 3, 3), (1, 1, 1), 1),
    "linear": ([_kernel((), ()), diagonal(torch.rand(4).double(), torch.rand(4).double(), 0)], (), (), 1),
    "another stride": ([_kernel((3, 3), (1, 1)), _kernel((1, 1), (0, 0), stride=2)], None, None, None),
    "another size": ([_kernel((3, 3), (1, 1)), _kernel((3, 3), (0, 0))], None, None, None),
    "off the middle": ([_kernel((3, 3), (1, 1)), _kernel((2, 2), (1, 1))], None, None, None),
    "dearer together": ([_kernel((7, 7), (3, 3), groups=4), _kernel((1, 1), (0, 0))], None, None, None),
    "strips alone": ([_kernel((1, 5), (0, 2)), _kernel((5, 1), (2, 0))], None, None, None),
}
"""Kernels, then sizes, padding and groups of their sum; None where there is no such sum."""


@pytest.mark.parametrize("case", _SUMS)
def test_sum(case):
    kernels, sizes, padding, groups = _SUMS[case]
    if sizes is None:
        assert not can_add(kernels)
        assert not can_add(kernels[::-1])
        return
    assert can_add(kernels)
    total = added(kernels)
    assert (total.sizes, total.padding, total.groups) == (sizes, padding, groups)
    for size in (7, 8, 9):
        x = torch.randn(2, kernels[0].channels[0], *[size] * len(sizes), dtype=torch.float64)
        torch.testing.assert_close(_run(total, x), sum(_run(k, x) for k in kernels), rtol=1e-12, atol=1e-12)


def test_groups_that_share_a_divisor():
    kernels = [_kernel((3, 3), (1, 1), groups=g, channels=(12, 24)) for g in (4, 6, 2)]
    assert can_add(kernels)
    total, x = added(kernels), torch.randn(2, 12, 5, 5, dtype=torch.float64)
    assert total.groups == 2
    torch.testing.assert_close(_run(total, x), sum(_run(k, x) for k in kernels), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("identity", [0.0, 1.0])
def test_rounding_as_it_is_estimated(identity):
    """Against weights that are rounded."""
    torch.manual_seed(0)
    kernel = _kernel((3, 3), (1, 1), channels=(64, 64))
    weight = kernel.weight * 0.05
    weight[:, :, 1, 1] += identity * torch.eye(64, dtype=torch.float64)
    kernel = Kernel(weight=weight, bias=None, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
    step = weight.abs().amax((1, 2, 3), keepdim=True) / 127
    error = (weight / step).round() * step - weight
    measured = 10 * torch.log10(weight.square().sum() / error.square().sum())
    assert abs(rounding_db(kernel) - float(measured)) < 0.2
    assert rounding_db(kernel) > 38 if identity == 0 else rounding_db(kernel) < 30
