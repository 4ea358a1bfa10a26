"""Search arguments: what they take, what a grid visits, and what is wrong in a task file."""

from __future__ import annotations

import math

import pytest

from razordeploy.errors import RecipeError
from razordeploy.hpo.args import fixed, grid, leaves, parse_args, suggest

NESTED = {
    "type": "Nested",
    "options": {
        "sgd": {"text": "--m {m}", "args": {"m": {"type": "Real", "low": 0, "high": 1, "num": 2}}},
        "adam": None,
    },
}


def _args(**values):
    return parse_args(values, "hpo.yaml")


def test_a_grid_is_the_whole_product_once_and_in_order():
    found = list(grid(_args(a=[1, 2], b={"type": "Int", "low": 0, "high": 4, "step": 2}, c=NESTED)))
    assert len(found) == 2 * 3 * (2 + 1)
    assert len({tuple(sorted(p.items())) for p in found}) == len(found)
    assert found[0] == {"a": 1, "b": 0, "c": "sgd", "c.sgd.m": 0.0}
    assert found[2] == {"a": 1, "b": 0, "c": "adam"}
    assert [p["a"] for p in found] == [1] * 9 + [2] * 9


def test_a_logarithmic_grid_has_equal_ratios_and_ends_at_its_bounds():
    points = [p["lr"] for p in grid(_args(lr={"type": "Real", "low": 1e-4, "high": 1.0, "log": True, "num": 5}))]
    assert points[0] == 1e-4
    assert points[-1] == 1.0
    assert [b / a for a, b in zip(points, points[1:], strict=False)] == pytest.approx([10] * 4)


def test_values_come_from_the_trial():
    optuna = pytest.importorskip("optuna", reason="needs optuna")
    args = _args(a=[[1, 2], None, "x"], c=NESTED)
    trial = optuna.trial.FixedTrial({"a": "[1, 2]", "c": "sgd", "c.sgd.m": 0.25})
    assert suggest(args, trial) == {"a": [1, 2], "c": {"option": "sgd", "m": 0.25}}
    assert leaves({"option": "sgd", "m": 0.25}, "c") == [("c", "sgd"), ("c.m", 0.25)]


def test_listed_configurations_are_checked():
    args = _args(a=[1, 2], lr={"type": "Real", "low": 0, "high": 1}, c=NESTED)
    params = fixed(args, {"a": 2, "lr": 0.5, "c": {"option": "sgd", "m": 0.1}})
    assert params == {"a": 2, "lr": 0.5, "c": "sgd", "c.sgd.m": 0.1}
    for wrong, message in (
        ({"a": 3, "lr": 0.5, "c": "adam"}, "expected one of \\[1, 2\\], got 3"),
        ({"a": 1, "lr": 1.5, "c": "adam"}, "expected a number from 0 to 1, got 1.5"),
        ({"a": 1, "c": "adam"}, "expected a value for 'lr'"),
        ({"a": 1, "lr": 0, "c": "adam", "lrr": 1}, "no search arg 'lrr'; did you mean 'lr'"),
        ({"a": 1, "lr": 0, "c": "sgdd"}, "expected one of the options"),
    ):
        with pytest.raises(RecipeError, match=message):
            fixed(args, wrong)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "Reel", "low": 0, "high": 1}, "needs a type, got 'Reel'; did you mean 'Real'"),
        ({"low": 0}, "needs a type"),
        (3, "needs a type, got 3"),
        ({"type": "Real", "low": 0, "hihg": 1}, "unknown key 'hihg' in 'search_args.x'; did you mean 'high'"),
        ({"type": "Real", "low": 0}, "expected a number for 'search_args.x.high', got nothing"),
        ({"type": "Real", "low": 1, "high": 1}, "expected more than low, 1, for 'search_args.x.high'"),
        ({"type": "Real", "low": 0, "high": 1, "log": True}, "a number above 0, as log is on"),
        ({"type": "Real", "low": 0, "high": math.inf}, "expected a number for"),
        ({"type": "Int", "low": 0.5, "high": 1}, "expected an integer for"),
        ({"type": "Int", "low": 1, "high": 9, "log": True, "step": 2}, "no step, as log is on"),
        ({"type": "Categorical", "values": []}, "expected a list of values"),
        ({"type": "Categorical", "values": [1, 1]}, "expected different values"),
        ({"type": "Nested"}, "expected a dict of name"),
        ({"type": "File", "template": "nowhere.in"}, "cannot read the template .*nowhere.in"),
    ],
)
def test_what_is_wrong(value, message):
    with pytest.raises(RecipeError, match=message):
        parse_args({"x": value}, "hpo.yaml")
