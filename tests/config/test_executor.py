"""The ``executor`` key: short and long form, and what is wrong in it."""

from __future__ import annotations

import pytest

from razordeploy.config.executor import ExecutorConfig
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import RecipeError


def test_short_and_long_form():
    assert ExecutorConfig.parse({}, "r.py") == ExecutorConfig()
    assert ExecutorConfig.parse("inline", "r.py").type == "inline"
    found = ExecutorConfig.parse({"type": "ray", "address": "auto", "max_parallel": 3, "gpus": 1}, "r.py")
    assert (found.type, found.address, found.max_parallel, found.gpus) == ("ray", "auto", 3, 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("rey", "unknown executor 'rey' in 'executor'; did you mean 'ray'"),
        ({"type": "local", "adress": "x"}, "unknown key 'adress' in 'executor'"),
        ({"type": "local", "address": "x"}, "unknown key 'address' in 'executor'"),
        ({"max_parallel": 0}, "an integer of at least 1 for 'executor.max_parallel'"),
        ({"timeout_s": 0}, "a number above 0 for 'executor.timeout_s'"),
        ({"type": "slurm", "cluster": "pbs"}, "one of slurm, local, debug for 'executor.cluster'"),
        ({"type": "slurm", "options": 3}, "a dict of submitit's parameters"),
        (3, "expected a dict for 'executor'"),
    ],
)
def test_what_is_wrong(value, message):
    with pytest.raises(RecipeError, match=message):
        ExecutorConfig.parse(value, "r.py")


def test_a_recipe_names_it_and_its_identity_does_not_change():
    plain = load_recipe("ptq/digits_resnet8.py")
    other = load_recipe("ptq/digits_resnet8.py", {"executor": "{'type': 'inline'}"})
    assert other.executor.type == "inline"
    assert plain.executor.type == "local"
    assert plain.fingerprint() == other.fingerprint()
