"""The table of algorithms: every name leads to a trainer that has a class for it."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

from razordeploy.compress.algorithms import TRAINERS, is_algorithm, trainer_of
from razordeploy.errors import RecipeError


def _recipe(kind: str) -> SimpleNamespace:
    return SimpleNamespace(model={"type": kind}, path="recipe.py")


@pytest.mark.parametrize("name", TRAINERS)
def test_every_name_has_a_trainer_that_knows_it(name):
    train = trainer_of(_recipe(f"mmrazor.{name}"))
    assert callable(train)
    table = importlib.import_module(train.__module__).ALGORITHMS
    assert name in table and table[name].__name__


def test_an_unknown_name_is_refused_with_the_nearest():
    assert is_algorithm(_recipe("mmrazor.SingleTeacherDistill")) and not is_algorithm(_recipe("ImageClassifier"))
    with pytest.raises(RecipeError, match="unknown algorithm 'mmrazor.SelfDistil'.*did you mean 'SelfDistill'"):
        trainer_of(_recipe("mmrazor.SelfDistil"))
