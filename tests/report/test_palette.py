"""Contrast of the page's colours (WCAG 2.2, relative luminance and contrast ratio), from its style sheet."""

import re
from pathlib import Path

import pytest

import razordeploy.report.html as html

STYLE = Path(html.__file__).with_name("templates").joinpath("style.css").read_text()
TEXT, DRAWING = 4.5, 3.0

# (what is in front, what lies behind): every pair that the style sheet brings together.
TEXTS = [
    *[("text", "page"), ("text", "card"), ("text", "sunk"), ("muted", "page"), ("muted", "card"), ("muted", "sunk")],
    *[("link", "page"), ("link", "card"), ("ok", "card"), ("bad", "card"), ("float", "card")],
    *[("on-badge", "ok"), ("on-badge", "bad"), ("on-int8", "int8"), ("on-tint", "tint")],
    *[("on-float", "hatch-a"), ("on-float", "hatch-b"), ("card", "text")],
]
DRAWINGS = [
    *[("int8", "card"), ("float", "card"), ("bad", "card"), ("ok", "card"), ("edge", "card"), ("int8", "sunk")],
    *[("text", "sunk"), ("text", "tint"), ("int8", "tint"), ("bad", "sunk"), ("float", "hatch-a"), ("link", "card")],
]


def palettes():
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})\b", block)) for block in re.split(r"@media", STYLE, maxsplit=2)[:2]
    )
    return {"light": light, "dark": dark}  # fmt: skip


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_on_known_pairs():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_both_themes_name_the_same_colours():
    light, dark = palettes().values()
    assert light.keys() == dark.keys()
    assert {name for pair in TEXTS + DRAWINGS for name in pair} <= light.keys()
    assert set(re.findall(r"var\(--([\w-]+)\)", STYLE)) - {"share"} <= light.keys()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("pairs", "least"), [(TEXTS, TEXT), (DRAWINGS, DRAWING)], ids=["text", "drawing"])
def test_contrast(theme, pairs, least):
    colours = palettes()[theme]
    found = {f"{front} on {back}": contrast(colours[front], colours[back]) for front, back in pairs}
    assert {pair: round(ratio, 2) for pair, ratio in found.items() if ratio < least} == {}
