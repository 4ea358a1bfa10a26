"""Commands that a reader pastes."""

import shlex
from pathlib import Path

import pytest

from razordeploy.report.commands import measuring_commands, next_commands, page_commands

WORK = Path("work dir")


def texts(found):
    return [command.text for command in found]


def test_the_page_offers_each_engine_with_and_without_razordeploy(report):
    del report["backends"]["onnxruntime"]["usage"]
    assert [command.title for command in page_commands(report, WORK)] == [
        "Use the openvino engine",
        "Use the openvino engine without razordeploy",
        "Use the onnxruntime engine",
        "Do this run again",
        "Measure accuracy again",
        "Measure latency again",
    ]


def test_shell_commands_keep_a_folder_with_a_blank_together(report):
    assert [shlex.split(text) for text in texts(measuring_commands(report, WORK))] == [
        ["razordeploy", "evaluate", "work dir"],
        ["razordeploy", "benchmark", "work dir"],
    ]


def test_a_run_without_recipe_has_no_data_to_evaluate_on(report):
    report["recipe"] = None
    assert texts(measuring_commands(report, WORK)) == ["razordeploy benchmark 'work dir'"]


def test_an_engine_of_a_fixed_batch_is_called_with_that_batch(report):
    report["inputs"][0]["shape"][0] = 4
    assert "razordeploy benchmark 'work dir' --batch 4" in next_commands(report, WORK)
    assert "random_inputs(batch=4)" in texts(page_commands(report, WORK))[0]
    assert "benchmark(batch=4)" in next_commands(report, WORK)[-1]


@pytest.mark.parametrize("name", ["plain", 'a "quoted" one', "it's", "back\\slash", "tab\there", "模型 😀"])
def test_python_reads_the_path_back(report, name):
    (line,) = [x for x in texts(page_commands(report, Path(name)))[0].splitlines() if "load_engine" in x]
    assert eval(line.partition("load_engine")[2]) == str(Path(name) / "openvino")


def test_a_failed_backend_offers_nothing(report, failed_backend):
    report["backends"] = {"tensorrt": failed_backend}
    assert texts(page_commands(report, WORK)) == [report["command"]]
    del report["command"]
    assert texts(page_commands(report, WORK)) == ["razordeploy doctor"]
