from __future__ import annotations

import json

import pytest

from razordeploy.errors import UsageError
from razordeploy.subnet.candidates import Candidates


def test_subnets_scores_and_resources():
    candidates = Candidates({"a": 1, "b": (2, 3)})
    candidates.append({"a": 2, "b": (2, 3)})
    candidates.insert(0, ({"a": 3}, {"flops": 5.0}))
    candidates.extend([{"a": 4}])
    assert [subnet["a"] for subnet in candidates.subnets] == [3, 1, 2, 4]
    assert candidates.resources("flops") == [5.0, None, None, None]
    candidates.set_score(1, 70)
    candidates.set_resource(2, 9, "latency")
    candidates.update_resources([{"score": 80.0, "params": 1.5}, {"score": 60.0}], start=2)
    assert candidates.scores == [None, 70.0, 80.0, 60.0]
    assert candidates.resources("params") == [None, None, 1.5, None]
    candidates.sort_by("score")
    assert [subnet["a"] for subnet in candidates.subnets] == [2, 1, 4, 3]
    candidates.sort_by("score", reverse=False)
    assert [subnet["a"] for subnet in candidates.subnets] == [4, 1, 2, 3]


def test_distinct_subnets():
    candidates = Candidates([({"a": 1, "b": 2}, {"score": 3.0}), {"c": 1}, ({"b": 2, "a": 1}, {"score": 4.0})])
    assert candidates.distinct().scores == [3.0, None]
    assert len(candidates) == 3


def test_through_a_file():
    # mmrazor keeps subnets as text and evaluates it to get them back.
    candidates = Candidates([({"a": "__import__('os')", "b": (1, 2)}, {"flops": 3.0})])
    again = Candidates.load(json.loads(json.dumps(candidates.dump())))
    assert again.subnets == [{"a": "__import__('os')", "b": [1, 2]}]
    assert again[0].key == candidates[0].key
    assert again.resources("flops") == [3.0]


def test_what_is_unknown_is_refused():
    candidates = Candidates([{"a": 1}])
    with pytest.raises(UsageError, match="did you mean 'flops'"):
        candidates.resources("flop")
    with pytest.raises(UsageError, match="at most 1 candidates"):
        candidates.update_resources([{}, {}])
    with pytest.raises(UsageError, match="expected a subnet"):
        candidates.append("a")
    with pytest.raises(UsageError, match="unknown indicator"):
        candidates.append(({"a": 1}, {"accuracy": 3.0}))
