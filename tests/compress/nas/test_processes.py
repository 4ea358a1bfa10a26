"""Two processes with half of the batch each take the step of one process with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
ALGORITHMS = ("spos", "bignas", "darts", "darts_unrolled", "dsnas")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1"}
    names = ("0", "1", "alone")
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", HERE / "rank.py", name, directory], env=environment, stderr=subprocess.PIPE
        )
        for name in names
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    return {name: torch.load(directory / f"{name}.pt") for name in names}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradients_are_those_of_one_process(name, ranks):
    expected = ranks["alone"][name]
    untouched = 0
    for part, theirs in expected.items():
        for rank in ("0", "1"):
            for ours, single in zip(ranks[rank][name][part], theirs, strict=True):
                assert (ours is None) == (single is None), part
                untouched += ours is None
                if ours is not None:
                    torch.testing.assert_close(ours, single, atol=1e-9, rtol=1e-6)
        assert any(single is not None and single.any() for single in theirs), part
    # Operations that were not drawn: DistributedDataParallel would have waited for them, or halved what was.
    assert (untouched > 0) == (name in ("spos", "dsnas"))
