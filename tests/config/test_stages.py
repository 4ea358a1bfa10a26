"""The ``pipeline`` section."""

from __future__ import annotations

import pytest

from razordeploy.config.stages import parse_stages, placed, places
from razordeploy.errors import RecipeError


def test_stages_follow_each_other():
    stages = parse_stages(
        [
            {"stage": "train"},
            {"stage": "ptq", "name": "int8", "backends": "openvino,x", "benchmark_seconds": 0},
            {"stage": "export", "name": "slice", "set": {"prune.choice": 0.5}},
            {"stage": "train", "name": "distil", "model": {"type": "T", "teacher_ckpt": "{train}/model.pth"}},
            {"stage": "export", "name": "other", "from": "train", "recalibrate": 10},
            {"stage": "train", "name": "alone", "from": "nothing"},
        ],
        "r.py",
    )
    assert [s.source for s in stages] == [None, "train", "train", None, "train", None]
    assert stages[1].options == {"backends": ("openvino", "x"), "benchmark_seconds": 0.0}
    assert stages[2].set == {"prune.choice": 0.5}
    assert stages[3].parents == ("train",)
    assert stages[4].options == {"recalibrate": 10}


def test_folders_take_the_place_of_names():
    value = {"a": ["{train}/x.pth", 3], "b": {"c": "{w-50}"}}
    assert places(value) == ["train", "w-50"]
    assert placed(value, {"train": "/t", "w-50": "/w"}) == {"a": ["/t/x.pth", 3], "b": {"c": "/w"}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([], "expected a list of stages for 'pipeline'"),
        ("train", "expected a list of stages for 'pipeline', got str"),
        ([{"stage": "trian"}], "with a known 'stage', got 'trian'; did you mean 'train'?"),
        ([{"name": "x"}], "with a known 'stage', got None"),
        ([{"stage": "train", "backends": "x"}], "unknown key 'backends' in 'pipeline[0]'"),
        ([{"stage": "train", "name": "a b"}], "a name of letters"),
        ([{"stage": "train"}, {"stage": "train"}], "two stages are called 'train'"),
        ([{"stage": "ptq", "from": "train"}], "no stage 'train' comes before 'ptq'; it is the first stage"),
        ([{"stage": "train"}, {"stage": "ptq", "from": "trian"}], "did you mean 'train'?"),
        ([{"stage": "train"}, {"stage": "ptq"}, {"stage": "export", "from": "ptq"}], "'ptq' makes engines"),
        ([{"stage": "train", "set": {"a": "{slice}/x"}}], "no stage 'slice' comes before 'train'"),
        ([{"stage": "train", "set": [1]}], "expected a dict for 'pipeline[0].set'"),
        ([{"stage": "ptq", "benchmark_seconds": -1}], "a number of at least 0"),
    ],
)
def test_refused(value, text):
    with pytest.raises(RecipeError) as caught:
        parse_stages(value, "r.py")
    assert text in str(caught.value)
