"""The shipped pipelines on digits, with fewer epochs: every stage runs, and int8 engines of the last one work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import razordeploy as rd
from razordeploy.lazy import available

ROOT = Path(__file__).resolve().parents[2]
QUICK = {
    "prune_kd_qat": ("train.epochs=6", "qat.epochs=1"),
    "nas_kd_int8": (
        *("train.epochs=6", "search.max_epochs=1", "search.num_candidates=8", "search.num_mutation=4"),
        *("search.num_crossover=4", "executor.type=inline"),
    ),
}
LAST = {"prune_kd_qat": "qat", "nas_kd_int8": "int8"}
LEAST = {"prune_kd_qat": 90.0, "nas_kd_int8": 60.0}
"""Percent: far above chance, far below what the whole recipes reach."""


@pytest.mark.skipif(not available("mmcls"), reason="mmcls is not installed")
@pytest.mark.parametrize("name", QUICK)
def test_pipeline(name, tmp_path):
    command = [sys.executable, "-m", "razordeploy.cli.main", "run", f"pipelines/digits/{name}.py", "--work-dir", "w"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--set", *QUICK[name], "deploy.max_drop=3.0"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "w" / "report.json").read_text())
    assert report["passed"] is True
    assert [row["name"] for row in report["rows"]][-2:] == [LAST[name]] * 2
    for row in report["rows"][-2:]:
        assert row["value"] > LEAST[name]
        engine = rd.load_engine(tmp_path / "w" / LAST[name] / row["backend"])
        assert engine.coverage().int8 == engine.coverage().planned > 0
