"""Operations that only move values (pad, upsample, shuffle, split, pixel shuffle) keep the grid and stay int8."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.conformance.blocks import IMAGE, conv_bn


def _between(op):
    return nn.Sequential(conv_bn(8, 8, act=nn.ReLU()), op, nn.Conv2d(8, 8, 1))


class _ShuffleUnit(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = conv_bn(8, 8, act=nn.ReLU()), conv_bn(4, 4, 1), conv_bn(8, 8, 1)

    def forward(self, x):
        kept, worked = self.a(x).chunk(2, 1)
        x = torch.cat([kept, self.b(worked)], 1)
        n, c, h, w = x.shape
        return self.head(x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))


class _Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = conv_bn(8, 8, act=nn.ReLU()), conv_bn(3, 4, 1), conv_bn(5, 4, 1)
        self.head = conv_bn(8, 8, 1)

    def forward(self, x):
        left, right = self.a(x).split([3, 5], 1)
        return self.head(torch.cat([self.b(left), self.c(right)], 1))


@pytest.mark.parametrize(
    "op", [nn.Upsample(scale_factor=2), nn.ChannelShuffle(2), nn.Identity(), nn.Dropout(0.5)], ids=str
)
def test_moves(tester, op):
    pairs = (3, 2) if isinstance(op, (nn.Identity, nn.Dropout)) else (4, 2)
    (
        tester(lambda: _between(op), IMAGE, batches=(1,))
        .check_points(openvino=(2, 2), onnxruntime=pairs)
        .check_int8({"conv2d": 2})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


@pytest.mark.parametrize("op", [nn.ZeroPad2d(1), nn.ReflectionPad2d(1)], ids=str)
def test_pad(tester, op):
    tested = tester(lambda: _between(op), IMAGE).check_points(openvino=(2, 2), onnxruntime=(4, 2))
    inside = isinstance(op, nn.ZeroPad2d)  # of the convolution behind it
    tested.check_int8({"conv2d": 2}).check_float_kernels(openvino=set(), onnxruntime=set() if inside else {"Pad"})
    tested.run_and_compare()
    if tested.backend.name == "onnxruntime":
        assert "in float" in tested.float_reasons["pad"]


def test_bilinear_stays_float(tester):
    op = nn.Upsample(scale_factor=2, mode="bilinear")
    tested = tester(lambda: _between(op), IMAGE).check_points(openvino=(2, 2), onnxruntime=(4, 2))
    tested.check_int8({"conv2d": 2}).run_and_compare()
    assert "upsample_linear" in tested.float_reasons


def test_pixel_shuffle(tester):
    (
        tester(lambda: nn.Sequential(conv_bn(8, 16, act=nn.ReLU()), nn.PixelShuffle(2), conv_bn(4, 8)), IMAGE)
        .check_points(openvino=(2, 2), onnxruntime=(4, 2))
        .check_int8({"conv2d": 2})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_shuffle_unit(tester):
    (
        tester(_ShuffleUnit, IMAGE, batches=(1,))
        .check_points(openvino=(3, 3), onnxruntime=(10, 3))
        .check_int8({"conv2d": 3}, onnxruntime={"conv2d": 3, "cat": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_split(tester):
    (
        tester(_Split, IMAGE)
        .check_points(openvino=(4, 4), onnxruntime=(8, 4))
        .check_int8({"conv2d": 4}, onnxruntime={"conv2d": 4, "cat": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


def test_flatten_before_a_linear_layer(tester):
    (
        tester(
            lambda: nn.Sequential(conv_bn(8, 8, act=nn.ReLU()), nn.Flatten(), nn.Linear(512, 5)), IMAGE, batches=(1,)
        )
        .check_points(openvino=(2, 2), onnxruntime=(3, 2))
        .check_int8({"conv2d": 1, "linear": 1})
        .check_float_kernels(openvino=set(), onnxruntime=set())
        .run_and_compare()
    )


class _Recurrent(nn.Module):
    """What a recurrent layer gives back comes out of a tuple, and is not on the grid of what went in."""

    def __init__(self):
        super().__init__()
        self.conv, self.recurrent = nn.Conv1d(4, 16, 3, padding=1), nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 8)

    def forward(self, x):
        found, _ = self.recurrent(self.conv(x).relu().transpose(1, 2))
        return self.head(found[:, -1])


def test_outputs_of_a_recurrent_layer_are_on_no_grid_of_its_inputs(tester):
    tester(_Recurrent, (2, 4, 6), batches=(1,)).run_and_compare()


class _ClassToken(nn.Module):
    """Patches of a float stream go on; the token before them is far out of their range."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Linear(16, 16), nn.LayerNorm(16)
        self.patches, self.head = nn.Linear(16, 16), nn.Linear(16, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 16) * 2000)

    def forward(self, x):
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), torch.tanh(self.embed(x))], 1)
        return self.head(self.norm(tokens)[:, 0]), self.patches(tokens[:, 1:])


def test_a_class_token_is_not_in_the_range_of_the_patches(tester):
    tester(_ClassToken, (2, 6, 16), batches=(1, 3)).check_int8({"linear": 3}).run_and_compare()


class _ShiftedWindows(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.a, self.b = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        n, h, w, c = x.shape
        x = torch.roll(self.norm(x), (-1, -1), (1, 2))
        x = x.reshape(n, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, -1, 4, c)
        x = self.b(torch.relu(self.a(x)))
        x = x.reshape(n, h // 2, w // 2, 2, 2, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(x, (1, 1), (1, 2))


def test_layers_behind_a_shifted_window_are_int8(tester):
    tested = tester(_ShiftedWindows, (2, 4, 6, 8), batches=(1, 3)).check_int8({"linear": 2})
    moves = {"LayerNormalization", "Reshape", "Split", "Transpose"}
    tested.check_float_kernels(onnxruntime=moves).run_and_compare()


class _LastChannels(nn.Module):
    """A pointwise convolution on channels that were last: OpenVINO makes a linear layer of it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        signed = torch.cat([torch.sin(x), 3 * torch.cos(x)], -1)
        return self.conv(signed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def test_a_pointwise_convolution_between_transposes(tester):
    tester(_LastChannels, (2, 5, 6, 4), batches=(1, 3)).check_int8({"conv2d": 1}).run_and_compare()


class _PooledPart(nn.Module):
    """Res2Net's first blocks: layers and a padded average pool read parts of one value."""

    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.head = conv_bn(8, 16, act=activation), conv_bn(8, 8, act=nn.ReLU()), nn.Conv2d(16, 8, 1)
        self.pool = nn.AvgPool2d(3, 1, 1)

    def forward(self, x):
        left, right = torch.split(self.a(x), 8, 1)
        return self.head(torch.cat([self.b(left), self.pool(right)], 1))


def test_a_pool_of_a_part(tester):
    kinds = {"conv2d": 3, "avg_pool": 1}
    tester(lambda: _PooledPart(nn.ReLU()), IMAGE).check_int8(kinds, onnxruntime={**kinds, "cat": 1}).run_and_compare()


@pytest.mark.parametrize("activation", [nn.Identity(), nn.SiLU()], ids=str)
def test_a_pool_of_a_signed_part(tester, activation):
    tester(lambda: _PooledPart(activation), IMAGE, batches=(1, 3)).run_and_compare()


class _GroupedPart(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.a, self.dense, self.grouped = (
            nn.Conv2d(8, 16, 1),
            nn.Conv2d(8, 8, 1),
            nn.Conv2d(8, 8, 3, groups=2, padding=1),
        )
        self.activation, self.head = activation, nn.Conv2d(16, 8, 1)

    def forward(self, x):
        left, right = self.activation(self.a(x)).chunk(2, 1)
        return self.head(torch.cat([self.dense(left), self.grouped(right)], 1))


@pytest.mark.parametrize("activation", [nn.Identity(), nn.GELU()], ids=str)
def test_a_grouped_layer_on_a_part(tester, activation):
    tested = tester(lambda: _GroupedPart(activation), IMAGE)
    tested.check_int8({"conv2d": 4}, openvino={"conv2d": 3}, onnxruntime={"conv2d": 4, "cat": 1})
    tested.run_and_compare()
    if tested.backend.name == "openvino":
        assert "zero point 0" in tested.float_reasons["conv2d"]


class _Maximum(nn.Module):
    """The largest of some values: of neighbours, of all points."""

    def __init__(self, axis, keep):
        super().__init__()
        self.axis, self.keep = axis, keep
        self.layer = nn.Conv2d(8, 8, 1) if keep else nn.Linear(8, 8)

    def forward(self, x):
        if not self.keep:
            x = x.flatten(2)
        return self.layer((2 * torch.sin(x)).max(self.axis, keepdim=self.keep)[0])


class _SpatialAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gate, self.head = (
            conv_bn(8, 8, act=nn.ReLU()),
            nn.Conv2d(2, 1, 3, padding=1),
            nn.Conv2d(8, 4, 1),
        )

    def forward(self, x):
        x = self.first(x)
        gate = self.gate(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)).sigmoid()
        return self.head(x * gate)


@pytest.mark.parametrize(("axis", "keep"), [(-1, True), (2, True), (2, False)])
def test_a_layer_behind_a_maximum(tester, axis, keep):
    kind = "conv2d" if keep else "linear"
    tester(lambda: _Maximum(axis, keep), IMAGE, batches=(1, 3)).check_int8({kind: 1}).run_and_compare()


class _Minimum(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return self.layer((2 * torch.sin(x)).amin((2, 3), keepdim=True))


def test_a_layer_behind_a_minimum(tester):
    tester(_Minimum, IMAGE, batches=(1, 3)).check_int8({"conv2d": 1}).run_and_compare()


def test_spatial_attention(tester):
    tester(_SpatialAttention, IMAGE, batches=(1, 3)).run_and_compare()
