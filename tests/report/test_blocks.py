"""Operations grouped by module."""

import random

import pytest

from razordeploy.report.blocks import LARGEST_BLOCK, blocks

VIT = [
    *["backbone.patch_embed.projection", "backbone.patch_embed", "backbone", "backbone"],
    *[
        f"backbone.layers.{i}.{name}"
        for i in range(12)
        for name in (
            ["ln1"] + ["attn.qkv"] + ["attn"] * 12 + ["attn.proj"] + ["ln2", "ffn.layers.0.0", "ffn.layers.0.1", "ffn"]
        )
    ],
    *["backbone.ln1", "head.fc"],
]
RESNET = [
    *["conv1", "relu"],
    *[f"layer{i}.{b}.{name}" for i in (1, 2, 3) for b in range(3) for name in ("conv1", "relu", "conv2", "add")],
    *["pool", "", "linear"],
]


def paths_of(found):
    return [block.path for block in found]


def test_a_transformer_has_a_block_a_layer():
    found = blocks(VIT)
    assert paths_of(found) == [
        "backbone.patch_embed … backbone",
        *(f"backbone.layers.{i}" for i in range(12)),
        "backbone.ln1 … head.fc",
    ]
    assert [len(part) for part in found[1].parts] == [1, 14, 1, 3]


def test_a_stage_of_some_blocks_is_one_line_cut_at_its_blocks():
    found = blocks(RESNET)
    assert paths_of(found) == ["conv1 … relu", "layer1", "layer2", "layer3", "pool … linear"]
    assert [len(part) for part in found[1].parts] == [4, 4, 4]


def test_a_large_stage_is_taken_apart():
    stage = [f"layer3.{b}.conv{c}" for b in range(6) for c in range(10)]
    assert len(stage) > LARGEST_BLOCK
    assert paths_of(blocks(stage)) == [f"layer3.{b}" for b in range(6)]


def test_a_flat_network_stays_whole_rather_than_a_line_an_operation():
    found = blocks([f"features.{i}" for i in range(100)])
    assert paths_of(found) == ["features"]
    assert [len(part) for part in found[0].parts] == [100]


@pytest.mark.parametrize("paths", [[], [""], ["a"], ["a.b.c"], ["", "a", ""], ["a", "a.b", "a", "b"]])
def test_few_operations(paths):
    assert [i for block in blocks(paths) for i in block.positions] == list(range(len(paths)))


@pytest.mark.parametrize("seed", range(20))
def test_every_operation_is_in_one_block_and_in_order(seed):
    draw = random.Random(seed)
    names = ["", "a", "b", "a.x", "a.x.0", "a.x.1", "a.y", "b.0.c", "b.1"]
    paths = [name for _ in range(60) for name in [draw.choice(names)] * draw.randrange(1, 12)]
    for limits in ({}, {"largest": 10, "mean": 2}):
        found = blocks(paths, **limits)
        assert [i for block in found for part in block.parts for i in part] == list(range(len(paths)))
        for block in found:
            if "…" not in block.path:
                assert all(f"{paths[i]}.".startswith(f"{block.path}.") or not block.path for i in block.positions)
