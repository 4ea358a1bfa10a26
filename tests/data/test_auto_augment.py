"""AutoAugment's operations against PIL, numpy and the ranges of the paper."""

from __future__ import annotations

import random

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import razordeploy.registry  # noqa: F401  (makes the scope known)
from razordeploy.data import auto_augment
from razordeploy.data.auto_augment import OPERATIONS, POLICIES, AutoAugment, AutoAugmentV2
from razordeploy.errors import RecipeError


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Magnitudes as they are written, signs positive."""
    monkeypatch.setattr(auto_augment, "DEVIATION", 0.0)
    monkeypatch.setattr(auto_augment, "_signed", lambda value: value)
    random.seed(0)


def applied(name, picture, magnitude, **extra):
    return OPERATIONS[name](1.0, magnitude, extra)({"img": picture})["img"]


EXPECTED = {
    "InvertV2": lambda p: 255 - p,
    "SolarizeV2": lambda p: np.where(p >= 128, 255 - p, p),
    "SolarizeAddV2": lambda p: np.where(p < 128, np.minimum(p.astype(int) + 55, 255), p),
    "PosterizeV2": lambda p: p & 0b11111100,
    "Color": lambda p: np.asarray(ImageEnhance.Color(Image.fromarray(p)).enhance(1.0)),
    "BrightnessV2": lambda p: p,
    "ContrastV2": lambda p: p,
    "SharpnessV2": lambda p: p,
    "EqualizeV2": lambda p: np.asarray(ImageOps.equalize(Image.fromarray(p))),
    "AutoContrastV2": lambda p: np.asarray(ImageOps.autocontrast(Image.fromarray(p))),
    "AutoAugmentOp": lambda p: p,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_values_at_half_the_magnitude(picture, name):
    assert np.array_equal(applied(name, picture, 5), EXPECTED[name](picture))


def test_the_ends_of_the_ranges(picture):
    assert np.array_equal(applied("PosterizeV2", picture, 10), picture)
    assert np.array_equal(applied("PosterizeV2", picture, 0), picture & 0b11110000)
    assert np.array_equal(applied("SolarizeV2", picture, 10), picture)
    assert applied("BrightnessV2", picture, 0).mean() == pytest.approx(0.1 * picture.mean(), abs=1)


@pytest.mark.parametrize(("name", "axis"), [("TranslateXRel", 1), ("TranslateYRel", 0)])
def test_moves(picture, name, axis):
    """0.45 of the side at the most; what comes in from outside is grey."""
    moved = applied(name, picture, 10 * 0.4 / 0.45, interpolation=Image.Resampling.NEAREST)
    side = picture.shape[axis]
    pixels = round(0.4 * side)
    kept = np.take(picture, range(pixels, side), axis)
    assert np.array_equal(np.take(moved, range(side - pixels), axis), kept)
    assert (np.take(moved, range(side - pixels, side), axis) == 128).all()


def test_what_is_nothing_at_magnitude_zero(picture):
    for name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "TranslateXRel", "TranslateYRel", "RotateV2"):
        assert np.array_equal(applied(name, picture, 0, interpolation=Image.Resampling.NEAREST), picture), name


def test_shear_and_rotation_reach_the_papers_limits(picture):
    sheared = np.asarray(
        Image.fromarray(picture).transform((10, 12), Image.Transform.AFFINE, (1, 0.3, 0, 0, 1, 0), fillcolor=(1, 2, 3))
    )
    options = {"interpolation": Image.Resampling.NEAREST, "img_mean": (1, 2, 3)}
    assert np.array_equal(applied("ShearX", picture, 10, **options), sheared)
    turned = np.asarray(Image.fromarray(picture).rotate(30, fillcolor=(1, 2, 3)))
    assert np.array_equal(applied("RotateV2", picture, 10, **options), turned)


def test_probability_and_magnitude_are_drawn_for_each_image(picture, monkeypatch):
    changed = sum(not np.array_equal(OPERATIONS["InvertV2"](0.3)({"img": picture})["img"], picture) for _ in range(400))
    assert 80 <= changed <= 160
    monkeypatch.setattr(auto_augment, "DEVIATION", 0.5)
    operation = OPERATIONS["BrightnessV2"](1.0, 5)
    assert len({int(operation({"img": picture})["img"].sum()) for _ in range(8)}) > 4


@pytest.mark.parametrize("name", POLICIES)
def test_policies_run(picture, name):
    policy = AutoAugment(name)
    assert len(policy.pairs) == 25
    seen = {policy({"img": picture, "gt_label": 3})["img"].tobytes() for _ in range(60)}
    assert len(seen) > 12


def test_policies_of_the_config(picture):
    policies = [[{"type": "mmrazor.InvertV2", "prob": 1.0, "magnitude": 0}, {"type": "InvertV2", "prob": 1.0}]]
    assert np.array_equal(AutoAugmentV2(policies)({"img": picture})["img"], picture)


def test_through_openmmlabs_registry(picture):
    pytest.importorskip("mmcls", reason="needs mmcls")
    from mmengine.registry import TRANSFORMS

    config = {"type": "mmrazor.AutoAugmentV2", "policies": [[{"type": "mmrazor.InvertV2", "prob": 1.0}]]}
    assert np.array_equal(TRANSFORMS.build(config)({"img": picture})["img"], 255 - picture)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoAugment("v1"), "unknown policy 'v1'"),
        (lambda: AutoAugmentV2([]), "expected lists of transforms"),
        (lambda: OPERATIONS["ShearX"](1.5), "expected prob from 0 to 1, got 1.5"),
        (lambda: AutoAugmentV2([[{"type": "ShearX", "prob": 1.0, "level": 3}]]), "AutoAugmentV2: ShearX"),
    ],
)
def test_wrong_use(make, message):
    with pytest.raises(RecipeError, match=message):
        make()
