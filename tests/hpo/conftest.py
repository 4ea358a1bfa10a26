"""Tasks small enough that a study of them takes a second."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from razordeploy.hpo.task import parse_task

pytest.importorskip("optuna", reason="Optuna is not installed")

# Prints one JSON line per step; what the options ask for goes wrong.
OBJECTIVE = """
import json, os, sys, time
options = dict(word.split("=") for word in sys.argv[1:])
x, steps = float(options.get("x", 0)), int(options.get("steps", 1))
if options.get("crash") == "yes":
    sys.exit("RuntimeError: out of luck")
if options.get("hang") == "yes":
    time.sleep(600)
if "count" in options:
    with open(options["count"], "a") as file:
        file.write(json.dumps([os.environ["RAZORDEPLOY_TRIAL_DIR"], x]) + chr(10))
for step in range(1, steps + 1):
    print("a line of log")
    if options.get("silent") != "yes":
        print(json.dumps({"step": step, "score": step / steps - (x - 0.3) ** 2, "cost": x}), flush=True)
    time.sleep(float(options.get("nap", 0)))
"""


@pytest.fixture
def objective(tmp_path):
    """Path of a command that takes key=value words."""
    path = tmp_path / "objective.py"
    path.write_text(OBJECTIVE)
    return path


@pytest.fixture
def make(objective, tmp_path):
    """``make("x={x} steps=3", {...changes})`` -> a checked task of that command."""

    def made(words="x={x}", **changes):
        values = {
            "task": {"template": f"{{python}} -S {objective} {words}", **changes.pop("task", {})},
            "search_args": {"x": {"type": "Real", "low": 0.0, "high": 1.0}},
            "reward_attribute": "score",
            "searcher": "Random",
            "scheduler": {"parallel_size": 2, "stop_criterion": {"max_tries": 4}},
            **changes,
        }
        return parse_task(values, tmp_path / "hpo.yaml")

    return made


def history(study):
    """What a study came to, without times."""
    return [(t.number, t.status, dict(t.values), dict(t.params)) for t in study.trials]


def journal_ends(folder: Path) -> dict[int, int]:
    """Trial id -> how often the journal says that it ended."""
    found: dict[int, int] = {}
    for line in (folder / "study.journal").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("op_code") == 6 and entry.get("state") in (1, 2, 3):  # set_trial_state_values: an end
            found[entry["trial_id"]] = found.get(entry["trial_id"], 0) + 1
    return found
