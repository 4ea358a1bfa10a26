"""The task file: defaults, times, numbers, and what is wrong in it."""

from __future__ import annotations

import pytest

from razordeploy.cli.hpo import _STARTER
from razordeploy.errors import RecipeError, UsageError
from razordeploy.hpo.task import load_task, read_yaml


def test_the_starter_is_a_task(tmp_path):
    (tmp_path / "hpo.yaml").write_text(_STARTER)
    task = load_task(tmp_path / "hpo.yaml", {"scheduler.stop_criterion.time_limits": "2h", "searcher": "Grid"})
    assert task.rewards == {"top1": "maximise"}
    assert (task.searcher, task.assessor, task.executor.max_parallel) == ("Grid", "MedianStop", 2)
    assert (task.stop.max_tries, task.stop.time_limits, task.stop.time_limits_per_job) == (20, 7200.0, 600.0)


def test_numbers_with_an_exponent_are_numbers():
    assert read_yaml("[1e-4, 1.5e+3, -2E5, 1.0, 12, 1e, e4, '1e-4']") == [1e-4, 1500, -2e5, 1.0, 12, "1e", "e4", "1e-4"]


def test_what_is_kept_for_resume_finds_its_templates_from_anywhere(tmp_path):
    (tmp_path / "config.in").write_text("x = {x}")
    (tmp_path / "hpo.yaml").write_text(
        "task: {template: 'run {config}'}\nsearch_args: {x: [1, 2], config: {type: File, template: config.in}}\n"
        "reward_attribute: a\nsearcher: Grid\n"
    )
    task = load_task(tmp_path / "hpo.yaml", {"seed": "7"})
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "task.yaml").write_text(task.text)
    again = load_task(tmp_path / "w" / "task.yaml")
    assert again.fingerprint() == task.fingerprint()
    assert again.seed == 7


def test_identity_is_that_of_the_search(make):
    task = make()
    assert make(scheduler={"parallel_size": 9, "stop_criterion": {"max_tries": 99}}).fingerprint() == task.fingerprint()
    assert make(seed=1).fingerprint() != task.fingerprint()
    assert make("x={x} more").fingerprint() != task.fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seracher": "TPE"}, "unknown key 'seracher' in 'hpo task'; did you mean 'searcher'"),
        ({"searcher": "Randon"}, "unknown searcher 'Randon'; did you mean 'Random'"),
        ({"searcher": {"type": "TPE", "population_size": 5}}, "unknown key 'population_size' in 'searcher'"),
        ({"assessor": "Median"}, "unknown assessor 'Median'; did you mean 'MedianStop'"),
        ({"assessor": "CurveFitting"}, "CurveFitting needs epoch_num"),
        ({"reward_attribute": None}, "no 'reward_attribute'"),
        ({"mode": "maximum"}, "unknown mode 'maximum'"),
        ({"reward_attribute": ["a", "b"], "mode": ["min", "max", "min"]}, "one mode for each of 2 rewards, got 3"),
        ({"scheduler": {"parallel_size": 2}}, "would never end"),
        ({"scheduler": {"stop_criterion": {"max_trys": 1}}}, "did you mean 'max_tries'"),
        ({"scheduler": {"stop_criterion": {"time_limits": "2 weeks"}}}, "seconds, or a time such as"),
        ({"reward_attribute": ["a", "b"], "assessor": "MedianStop"}, "an assessor needs one reward_attribute, got 2"),
        ({"search_args": {}}, "no 'search_args'"),
        ({"storage": "sqlite:///x.db"}, "SQLite loses studies on shared disks"),
        ({"executor": {"type": "local", "gpu": 1}}, "unknown key 'gpu' in 'executor'; did you mean 'gpus'"),
        ({"task": {"accept": [256]}}, "a list of exit codes"),
    ],
)
def test_what_is_wrong(make, changes, message):
    with pytest.raises(RecipeError, match=message):
        make(**changes)


def test_no_file_and_no_yaml(tmp_path):
    with pytest.raises(UsageError, match="found nothing; razordeploy hpo init"):
        load_task(tmp_path / "hpo.yaml")
    (tmp_path / "hpo.yaml").write_text("a: [")
    with pytest.raises(RecipeError, match="not YAML"):
        load_task(tmp_path / "hpo.yaml")
