from __future__ import annotations

import importlib
import json
import math

import pytest

from razordeploy.compress.nas.search.evaluator import Evaluator
from razordeploy.compress.nas.search.journal import Journal
from razordeploy.compress.nas.search.scored import Scored
from razordeploy.config.executor import ExecutorConfig
from razordeploy.errors import ModelError
from razordeploy.executors.build import build_executor
from razordeploy.executors.inline import InlineExecutor
from razordeploy.quantization.calibrate import Interrupted

# In a file of its own, where a worker finds it.
DEADLY = """
import os
import signal


def score(subnet):
    if subnet["a"] == 1 or (subnet["a"] == 2 and first(subnet["file"])):
        os.kill(os.getpid(), signal.SIGKILL)
    return float(subnet["a"]), 0.0


def first(file):
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
"""


def _score(subnet):
    if subnet["a"] == 3:
        raise ValueError("no such layer\nsecond line")
    return (math.nan, 0.5) if subnet["a"] == 4 else (float(subnet["a"]), 0.5)


def _batch(*values):
    return [{"a": value} for value in values]


def test_failures_are_recorded_and_the_search_goes_on(tmp_path):
    journal = Journal(tmp_path / "candidates.jsonl", "one")
    evaluate = Evaluator(InlineExecutor(), _score, journal, costs=lambda subnet: {"macs": 2.0 * subnet["a"]})
    found = evaluate(_batch(1, 3, 4, 2))
    assert [one.score for one in found] == [1.0, None, None, 2.0]
    assert [one.error for one in found] == [None, "ValueError: no such layer", "its score is nan", None]
    assert [one.costs for one in found] == [{"macs": 2.0}, {"macs": 6.0}, {"macs": 8.0}, {"macs": 4.0}]
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    assert [line.get("error") for line in lines[1:]] == [one.error for one in found]
    assert lines[1]["seconds"] == 0.5


def test_what_the_journal_knows_is_not_evaluated_again(tmp_path):
    path = tmp_path / "candidates.jsonl"
    Evaluator(InlineExecutor(), _score, Journal(path, "one"))(_batch(1, 3, 2))
    asked = []
    evaluate = Evaluator(InlineExecutor(), lambda subnet: asked.append(subnet) or (9.0, 0.0), Journal(path, "one"))
    found = evaluate(_batch(1, 3, 5))
    assert asked == _batch(5)
    assert [one.score for one in found] == [1.0, None, 9.0]
    assert evaluate.from_journal == 2


def test_a_cut_off_line_is_dropped_and_another_search_kept_aside(tmp_path):
    path = tmp_path / "candidates.jsonl"
    journal = Journal(path, "one")
    for value in (1, 2):
        journal.add(Scored(subnet={"a": value}, score=float(value)))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    again = Journal(path, "one")
    assert [one.subnet for one in again.known.values()] == _batch(1)
    again.add(Scored(subnet={"a": 2}, score=2.0))
    assert path.read_bytes() == whole
    other = Journal(path, "two")
    assert other.known == {}
    assert other.kept_as is not None
    assert other.kept_as.read_bytes() == whole
    assert Journal(path, "two").kept_as is None


def test_without_a_single_score_there_is_nothing_to_search(tmp_path):
    evaluate = Evaluator(InlineExecutor(), _score, Journal(tmp_path / "candidates.jsonl", "one"))
    with pytest.raises(ModelError, match="not one of 2 candidates could be scored; the first: ValueError: no such"):
        evaluate(_batch(3, 4))


def test_a_stop_keeps_what_is_known(tmp_path):
    journal = Journal(tmp_path / "candidates.jsonl", "one")
    evaluate = Evaluator(InlineExecutor(), _score, journal, stop=lambda: len(journal.known) >= 1)
    with pytest.raises(Interrupted, match=r"1 candidates are in .*candidates\.jsonl"):
        evaluate(_batch(1))
        evaluate(_batch(2))
    assert len(Journal(journal.path, "one").known) == 1


def test_a_dead_worker_costs_no_other_candidate(tmp_path, monkeypatch):
    (tmp_path / "deadly.py").write_text(DEADLY)
    monkeypatch.syspath_prepend(tmp_path)
    deadly = importlib.import_module("deadly")
    config = ExecutorConfig(type="local", max_parallel=2, cpus=1)
    batch = [{"a": value, "file": str(tmp_path / "once")} for value in (0, 1, 2, 3)]
    path = tmp_path / "candidates.jsonl"
    with build_executor(config) as executor:
        found = Evaluator(executor, deadly.score, Journal(path, "one"))(batch)
    assert [one.score for one in found] == [0.0, None, 2.0, 3.0]
    assert "SIGKILL" in found[1].error
    # The machine may have ended it: it gets another chance when the search goes on.
    assert {one.subnet["a"] for one in Journal(path, "one").known.values()} == {0, 2, 3}
