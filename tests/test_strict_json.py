import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from razordeploy.errors import UsageError
from razordeploy.strict_json import json_text, jsonable


@dataclass
class Point:
    x: float


def strict(text):
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), np.float64("inf")])
def test_numbers_that_json_lacks_become_null(value):
    assert strict(json_text({"a": [value, {"b": value}]})) == {"a": [None, {"b": None}]}


def test_numpy_paths_tuples_and_dataclasses_become_plain():
    value = {"a": np.int64(3), "b": np.array([[1.5, math.nan]]), "c": Path("x/y"), "d": (1, True), "e": Point(2.5)}
    assert strict(json_text(value)) == {"a": 3, "b": [[1.5, None]], "c": "x/y", "d": [1, True], "e": {"x": 2.5}}
    assert type(jsonable(np.float64(1.5))) is float


def test_the_error_names_the_place():
    with pytest.raises(UsageError, match=r"at value\.a\[1\], got set"):
        json_text({"a": [1, {2}]})
