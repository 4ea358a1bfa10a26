"""Units of transformers: heads, head widths, MLPs, norms and positions, held against permutation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Heads written as in the usual codebases; ``style`` picks how the products are."""

    def __init__(self, width, heads, style, inner=None):
        super().__init__()
        self.heads, self.inner, self.style = heads, inner or width, style
        self.qkv, self.proj = nn.Linear(width, 3 * self.inner), nn.Linear(self.inner, width)

    def forward(self, x):
        batch, length, _ = x.shape
        size = self.inner // self.heads
        if self.style == "chunk":
            q, k, v = (t.view(batch, length, self.heads, size).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        elif self.style == "per_head":
            q, k, v = self.qkv(x).view(batch, length, self.heads, 3 * size).transpose(1, 2).split(size, -1)
        else:
            q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, size).permute(2, 0, 3, 1, 4)
        if self.style == "sdpa":
            y = F.scaled_dot_product_attention(q, k, v)
        elif self.style == "einsum":
            scores = (torch.einsum("bhid,bhjd->bhij", q, k) * size**-0.5).softmax(-1)
            y = torch.einsum("bhij,bhjd->bhid", scores, v)
        else:
            y = ((q * size**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(batch, length, self.inner))


class Block(nn.Module):
    def __init__(self, width, heads, style, inner=None):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads, style, inner)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x + self.gamma * self.attn(self.norm1(x))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Vit(nn.Module):
    """Patches, a class token, positions, blocks, a norm and a head on the class token."""

    def __init__(self, width=12, heads=3, style="packed", inner=None, depth=2):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, width))
        self.blocks = nn.Sequential(*(Block(width, heads, style, inner) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class Windows(nn.Module):
    """Swin: windows partitioned and reversed, a shift, a table of relative positions with one column a head."""

    def __init__(self, width=8, heads=2, window=2, shift=1):
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.patch = nn.Conv2d(3, width, 2, stride=2)
        self.norm, self.qkv, self.proj = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.zeros(9, heads))
        grid = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="ij")).flatten(1)
        offsets = (grid[:, :, None] - grid[:, None, :]).permute(1, 2, 0) + 1
        self.register_buffer("index", offsets[..., 0] * 3 + offsets[..., 1])
        self.reduce = nn.Linear(4 * width, 2 * width, bias=False)
        self.head = nn.Linear(2 * width, 4)

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        batch, height, width, channels = x.shape
        y = torch.roll(self.norm(x), (-self.shift, -self.shift), (1, 2))
        w = self.window
        y = (
            y.view(batch, height // w, w, width // w, w, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(-1, w * w, channels)
        )
        qkv = self.qkv(y).reshape(y.shape[0], w * w, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        scores = qkv[0] @ qkv[1].transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(w * w, w * w, -1).permute(2, 0, 1)
        scores = scores + bias.unsqueeze(0)
        y = (scores.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(-1, w, w, channels)
        y = self.proj(y).view(batch, height // w, width // w, w, w, channels).permute(0, 1, 3, 2, 4, 5)
        x = x + torch.roll(y.reshape(batch, height, width, channels), (self.shift, self.shift), (1, 2))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.head(self.reduce(torch.cat(parts, -1)).mean((1, 2)))


class ChannelAttention(nn.Module):
    """XCiT: attention between the channels of a head."""

    def __init__(self, width=12, heads=3):
        super().__init__()
        self.heads = heads
        self.inp, self.qkv, self.proj = nn.Linear(12, width), nn.Linear(width, 3 * width), nn.Linear(width, 4)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x):
        x = self.inp(x)
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 4, 1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        scores = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(-1)
        return self.proj((scores @ v).permute(0, 3, 1, 2).reshape(batch, length, width))


class Cross(nn.Module):
    """``nn.MultiheadAttention`` between learned queries and tokens."""

    def __init__(self):
        super().__init__()
        self.query, self.inp = nn.Parameter(torch.zeros(1, 3, 12)), nn.Linear(12, 12)
        self.attn, self.norm, self.head = (
            nn.MultiheadAttention(12, 3, batch_first=True),
            nn.LayerNorm(12),
            nn.Linear(12, 4),
        )

    def forward(self, x):
        x = self.inp(x)
        query = self.query.expand(x.shape[0], -1, -1)
        return self.head(self.norm(query + self.attn(query, x, x, need_weights=False)[0]))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.out = nn.Linear(12, 8), nn.Linear(8, 4)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)

    def forward(self, x):
        return self.out(self.layer(self.inp(x)))


class Mixer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.norm, self.norm2 = nn.Linear(12, 8), nn.LayerNorm(8), nn.LayerNorm(8)
        self.tokens1, self.tokens2 = nn.Linear(5, 6), nn.Linear(6, 5)
        self.fc1, self.fc2, self.out = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.inp(x)
        x = x + self.tokens2(F.gelu(self.tokens1(self.norm(x).transpose(1, 2)))).transpose(1, 2)
        return self.out((x + self.fc2(F.gelu(self.fc1(self.norm2(x))))).mean(1))


class Gated(nn.Module):
    """A gated MLP in one projection, and a root-mean-square norm written out."""

    def __init__(self):
        super().__init__()
        self.inp, self.scale, self.norm = nn.Linear(12, 8), nn.Parameter(torch.ones(8)), nn.RMSNorm(8)
        self.up, self.glu, self.down, self.out = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(6, 8), nn.Linear(14, 4)

    def forward(self, x):
        x = self.norm(self.inp(x))
        y = x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * self.scale
        a, b = self.up(y).chunk(2, -1)
        return self.out(torch.cat([x + self.down(a * F.silu(b)), F.glu(self.glu(y), -1)], -1))


UNITS = {
    "packed": {
        "patch_(0, 12)_12",
        "blocks.0.attn.qkv_(0, 36)_3",
        "blocks.0.attn.qkv_(0, 36)_4",
        "blocks.0.fc1_(0, 24)_24",
    },
    "chunk": {
        "patch_(0, 12)_12",
        "blocks.0.attn.qkv_(0, 36)_3",
        "blocks.0.attn.qkv_(0, 24)_4",
        "blocks.0.attn.qkv_(24, 36)_4",
    },
    "per_head": {"patch_(0, 12)_12", "blocks.0.attn.qkv_(0, 36)_3", "blocks.0.attn.qkv_(0, 32)_4"},
}


@pytest.mark.parametrize("style", ["packed", "chunk", "per_head", "sdpa", "einsum"])
def test_vit(style, oracle, x):
    check = oracle(Vit(style=style), x)
    assert UNITS.get(style, UNITS["packed"]) <= set(check.graph.prunable)
    check.permute()
    check.remove_zeros(0.5)
    check.remove_zeros(0.5, primary=False)


@pytest.mark.parametrize("make", [ChannelAttention, Cross, Encoder, Mixer, Gated], ids=lambda m: m.__name__)
def test_tokens(make, oracle, tokens):
    check = oracle(make(), tokens)
    assert check.permute() >= 3
    check.remove_zeros(0.5)


def test_windows(oracle, x):
    check = oracle(Windows(), x)
    assert {"patch_(0, 8)_8", "qkv_(0, 24)_2", "qkv_(0, 24)_4", "reduce_(0, 16)_16"} == set(check.graph.prunable)
    heads = check.graph.units["qkv_(0, 24)_2"]
    assert heads.kind == "heads" and "table" in {m.tensor for m in heads.outputs()}
    check.permute()
    check.remove_zeros(0.5)


def test_heads_are_primary_and_their_width_is_not(oracle, x):
    check = oracle(Vit(), x)
    units = check.graph.units
    assert units["blocks.0.attn.qkv_(0, 36)_3"].primary
    assert not units["blocks.0.attn.qkv_(0, 36)_4"].primary
    assert units["patch_(0, 12)_12"].statistical and not units["blocks.0.fc1_(0, 24)_24"].statistical


def test_half_of_an_odd_number_of_heads_is_half_of_their_width(oracle, x):
    odd, even = oracle(Vit(heads=3), x).graph, oracle(Vit(heads=2), x).graph
    assert odd.select(0.5).widths["blocks.0.attn.qkv_(0, 36)_4"] == 2
    assert "blocks.0.attn.qkv_(0, 36)_3" not in odd.select(0.5).widths
    assert even.select(0.5).widths["blocks.0.attn.qkv_(0, 36)_2"] == 1
    assert even.select(0.4).widths["blocks.0.attn.qkv_(0, 36)_2"] == 1, "neither is even: heads"


def test_inner_width_of_attention_is_its_own(oracle, x):
    check = oracle(Vit(width=12, heads=2, inner=8), x)
    assert check.graph.units["blocks.1.attn.qkv_(0, 24)_2"].prunable
    check.permute()
