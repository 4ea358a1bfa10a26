"""Policies of AutoAugment for OpenMMLab's data pipelines, under mmrazor's names.

AutoAugment: Learning Augmentation Policies from Data (Cubuk et al. 2019, arXiv 1805.09501). A magnitude runs from 0 to
10; each call draws it anew from a normal distribution of deviation 0.5 around the policy's, and a sign where one is
meant. mmrazor drew both once, when the pipeline was built.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from razordeploy import lazy
from razordeploy.errors import RecipeError, nearest

MAX_LEVEL = 10.0
"""The largest magnitude of a policy."""
DEVIATION = 0.5
"""Of the magnitude, from call to call."""
FILL = (128, 128, 128)
TRANSLATE = 250.0
"""Pixels of ``TranslateX`` and ``TranslateY`` at the largest magnitude."""

# Name, probability and magnitude of two operations; published with the paper's and EfficientNet's code.
POLICIES: dict[str, tuple[tuple[tuple[str, float, float], ...], ...]] = {
    "original": (
        (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
        (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
        (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
        (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
        (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
        (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
        (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
        (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
        (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
        (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
        (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
        (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
        (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
        (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
        (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
        (("Rotate", 1.0, 7), ("TranslateYRel", 0.8, 9)),
        (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
        (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
        (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
        (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
        (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
        (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
        (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
        (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
        (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
    ),
    "v0": (
        (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
        (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
        (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
        (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
        (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
        (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
        (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
        (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
        (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
        (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
        (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
        (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
        (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
        (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
        (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
        (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
        (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
        (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
        (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
        (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
        (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
        (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    ),
}


class AutoAugmentOp:
    """One operation on ``results['img']``, an array (H, W, 3) of uint8, with a probability; alone it does nothing.

    Args:
        prob: that it is applied.
        magnitude: 0 to 10, before it is drawn.
        extra_params: ``img_mean``: fills what has no pixel; ``interpolation``: of PIL, one or several to draw from.

    Raises:
        RecipeError: a probability that is none.
    """

    def __init__(self, prob: float, magnitude: float = 0.0, extra_params: Mapping[str, Any] | None = None) -> None:
        if not 0.0 <= prob <= 1.0:
            raise RecipeError(f"{type(self).__name__}: expected prob from 0 to 1, got {prob}")
        self.prob, self.magnitude = prob, magnitude
        extra = dict(extra_params or {})
        self.fill = tuple(extra.get("img_mean", FILL))
        self.interpolation = extra.get("interpolation")

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change the images of ``results``, or leave them."""
        if random.random() >= self.prob:
            return results
        level = min(MAX_LEVEL, max(0.0, random.gauss(self.magnitude, DEVIATION)))
        image = lazy.require("PIL.Image", extra="data")
        for key in results.get("img_fields", ["img"]):
            results[key] = np.asarray(self.apply(image.fromarray(results[key]), level))
        return results

    def apply(self, image: Any, level: float) -> Any:
        """The PIL image at a magnitude."""
        return image

    def _moved(self, image: Any, matrix: Sequence[float]) -> Any:
        pil = lazy.require("PIL.Image", extra="data")
        return image.transform(
            image.size, pil.Transform.AFFINE, tuple(matrix), resample=self._resample(), fillcolor=self.fill
        )

    def _resample(self) -> Any:
        choices = self.interpolation
        if choices is None:
            resampling = lazy.require("PIL.Image", extra="data").Resampling
            choices = (resampling.NEAREST, resampling.BILINEAR, resampling.BICUBIC)
        return random.choice(choices) if isinstance(choices, list | tuple) else choices


def _signed(value: float) -> float:
    return -value if random.random() > 0.5 else value


class ShearX(AutoAugmentOp):
    """Shear along x by up to 0.3."""

    def apply(self, image: Any, level: float) -> Any:
        """Shear."""
        return self._moved(image, (1, _signed(0.3 * level / MAX_LEVEL), 0, 0, 1, 0))


class ShearY(AutoAugmentOp):
    """Shear along y by up to 0.3."""

    def apply(self, image: Any, level: float) -> Any:
        """Shear."""
        return self._moved(image, (1, 0, 0, _signed(0.3 * level / MAX_LEVEL), 1, 0))


class TranslateX(AutoAugmentOp):
    """Move along x by up to 250 pixels."""

    def apply(self, image: Any, level: float) -> Any:
        """Move."""
        return self._moved(image, (1, 0, _signed(TRANSLATE * level / MAX_LEVEL), 0, 1, 0))


class TranslateY(AutoAugmentOp):
    """Move along y by up to 250 pixels."""

    def apply(self, image: Any, level: float) -> Any:
        """Move."""
        return self._moved(image, (1, 0, 0, 0, 1, _signed(TRANSLATE * level / MAX_LEVEL)))


class TranslateXRel(AutoAugmentOp):
    """Move along x by up to 0.45 of the width."""

    def apply(self, image: Any, level: float) -> Any:
        """Move."""
        return self._moved(image, (1, 0, _signed(0.45 * level / MAX_LEVEL) * image.size[0], 0, 1, 0))


class TranslateYRel(AutoAugmentOp):
    """Move along y by up to 0.45 of the height."""

    def apply(self, image: Any, level: float) -> Any:
        """Move."""
        return self._moved(image, (1, 0, 0, 0, 1, _signed(0.45 * level / MAX_LEVEL) * image.size[1]))


class RotateV2(AutoAugmentOp):
    """Rotate by up to 30 degrees."""

    def apply(self, image: Any, level: float) -> Any:
        """Rotate."""
        return image.rotate(_signed(30.0 * level / MAX_LEVEL), resample=self._resample(), fillcolor=self.fill)


class AutoContrastV2(AutoAugmentOp):
    """Stretch the values of each channel to the whole range."""

    def apply(self, image: Any, level: float) -> Any:
        """Stretch."""
        return lazy.require("PIL.ImageOps", extra="data").autocontrast(image)


class InvertV2(AutoAugmentOp):
    """255 minus each value."""

    def apply(self, image: Any, level: float) -> Any:
        """Invert."""
        return lazy.require("PIL.ImageOps", extra="data").invert(image)


class EqualizeV2(AutoAugmentOp):
    """Equalise the histogram of each channel."""

    def apply(self, image: Any, level: float) -> Any:
        """Equalise."""
        return lazy.require("PIL.ImageOps", extra="data").equalize(image)


class SolarizeV2(AutoAugmentOp):
    """Invert the values from a threshold on: 0 at magnitude 0, 256 at 10."""

    def apply(self, image: Any, level: float) -> Any:
        """Solarise."""
        return lazy.require("PIL.ImageOps", extra="data").solarize(image, int(256 * level / MAX_LEVEL))


class SolarizeAddV2(AutoAugmentOp):
    """Add up to 110 to the values below 128."""

    def apply(self, image: Any, level: float) -> Any:
        """Add."""
        added = int(110 * level / MAX_LEVEL)
        table = [min(255, value + added) if value < 128 else value for value in range(256)]
        return image.point(table * len(image.getbands()))


class PosterizeV2(AutoAugmentOp):
    """Keep 4 bits of each value at magnitude 0, and all 8 at 10."""

    def apply(self, image: Any, level: float) -> Any:
        """Posterise."""
        bits = int(4 * level / MAX_LEVEL) + 4
        return image if bits >= 8 else lazy.require("PIL.ImageOps", extra="data").posterize(image, bits)


class _Enhance(AutoAugmentOp):
    """Factors from 0.1 to 1.9; 1 changes nothing."""

    kind = ""

    def apply(self, image: Any, level: float) -> Any:
        """Enhance."""
        enhancer: Any = getattr(lazy.require("PIL.ImageEnhance", extra="data"), self.kind)
        return enhancer(image).enhance(1.8 * level / MAX_LEVEL + 0.1)


class ContrastV2(_Enhance):
    """Contrast, by a factor from 0.1 to 1.9."""

    kind = "Contrast"


class Color(_Enhance):
    """Saturation, by a factor from 0.1 to 1.9."""

    kind = "Color"


class BrightnessV2(_Enhance):
    """Brightness, by a factor from 0.1 to 1.9."""

    kind = "Brightness"


class SharpnessV2(_Enhance):
    """Sharpness, by a factor from 0.1 to 1.9."""

    kind = "Sharpness"


OPERATIONS: dict[str, type[AutoAugmentOp]] = {
    kind.__name__: kind
    for kind in (
        *(AutoAugmentOp, AutoContrastV2, BrightnessV2, Color, ContrastV2, EqualizeV2, InvertV2, PosterizeV2, RotateV2),
        *(SharpnessV2, ShearX, ShearY, SolarizeAddV2, SolarizeV2, TranslateX, TranslateXRel, TranslateY, TranslateYRel),
    )
}
"""The operations that a config may name."""


class AutoAugment:
    """One of the 25 pairs of operations of a published policy, drawn for each image.

    Args:
        policies: ``original``: of the EfficientNet code; ``v0``: of the paper.
        extra_params: of the operations.

    Raises:
        RecipeError: another policy.
    """

    def __init__(self, policies: str = "original", extra_params: Mapping[str, Any] | None = None) -> None:
        if policies not in POLICIES:
            raise RecipeError(f"AutoAugment: unknown policy '{policies}'", hint=nearest(str(policies), POLICIES))
        self.policies = policies
        self.pairs = [
            [_named(name)(prob, magnitude, extra_params) for name, prob, magnitude in pair]
            for pair in POLICIES[policies]
        ]

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change the images of ``results``."""
        for operation in random.choice(self.pairs):
            results = operation(results)
        return results


class AutoAugmentV2:
    """One of several lists of transforms, drawn for each image.

    Args:
        policies: lists of configs, of the operations above or of any transform that is registered.

    Raises:
        RecipeError: no list, or an operation that does not take its keywords.
    """

    def __init__(self, policies: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        if not policies or not all(policies):
            raise RecipeError("AutoAugmentV2: expected lists of transforms in 'policies', got none")
        self.policies = [[_transform(config) for config in policy] for policy in policies]

    def __call__(self, results: dict[str, Any] | None) -> dict[str, Any] | None:
        """Change the images of ``results``."""
        for transform in random.choice(self.policies):
            if results is None:
                return None
            results = transform(results)
        return results


def _named(name: str) -> type[AutoAugmentOp]:
    return OPERATIONS.get(name) or OPERATIONS[f"{name}V2"]


def _transform(config: Mapping[str, Any]) -> Callable[[Any], Any]:
    keywords = dict(config)
    name = str(keywords.pop("type", None))
    kind = OPERATIONS.get(name.removeprefix("mmrazor.").removeprefix("razordeploy."))
    if kind is None:
        from mmengine.registry import TRANSFORMS as REGISTRY

        built: Callable[[Any], Any] = REGISTRY.build(dict(config))
        return built
    try:
        return kind(**keywords)
    except TypeError as error:
        raise RecipeError(f"AutoAugmentV2: {name}: {error}") from error


TRANSFORMS: dict[str, type] = {**OPERATIONS, "AutoAugment": AutoAugment, "AutoAugmentV2": AutoAugmentV2}
"""The transforms that a data pipeline may name."""
