"""``razordeploy search`` on a supernet whose candidates may also crash, give NaN or end their worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.conftest import wait_for

NET = """
import os
import time

import torch
from torch import nn

from razordeploy.subnet.mutables.one_shot_module import OneShotMutableOP


class Nan(nn.Module):
    def forward(self, x):
        return x * float("nan")


class Boom(nn.Module):
    def forward(self, x):
        raise ValueError("boom")


class Die(nn.Module):
    def forward(self, x):
        if os.environ.get("MAIN") != str(os.getpid()) and len(x) > 1:
            os._exit(9)
        return x


def block(extra, width):
    ops = {
        "three": nn.Conv2d(width, width, 3, padding=1),
        "one": nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width)),
        "none": nn.Identity(),
    }
    found = {"nan": Nan, "boom": Boom, "die": Die}
    return OneShotMutableOP(nn.ModuleDict({**ops, **{name: found[name]() for name in extra}}))


class Net(nn.Module):
    def __init__(self, extra=(), width=4, slow=0.0):
        super().__init__()
        self.slow = slow
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.first, self.second, self.third = (block(extra if i == 1 else (), width) for i in range(3))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        if self.slow:
            time.sleep(self.slow)
        for layer in (self.stem, self.first, self.second, self.third):
            x = layer(x).relu()
        return self.head(x.mean((2, 3)))


def net(**options):
    return Net(**options)


def samples(split, count=64):
    generator = torch.Generator().manual_seed(int(split == "test"))
    x = torch.randn(count, 3, 8, 8, generator=generator)
    return [(x[i], int(x[i].mean((1, 2)).argmax())) for i in range(count)]
"""
RECIPE = """
model = dict(type="snet:net", extra={extra!r}, slow={slow!r})
data = dict(type="snet:samples")
checkpoint = "supernet.pth"
calibration = dict(num_samples=32, batch_size=16)
deploy = dict(backends=["onnxruntime"], input_shapes=[(3, 8, 8)])
search = dict(type="evolution", max_epochs=3, num_candidates=6, num_mutation=3, num_crossover=3, top_k=3)
executor = dict(type={executor!r}, max_parallel=1, cpus=1)
"""

PLAIN = """
import torch
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )


def samples(split):
    x = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(int(split == "test")))
    return [(x[i], int(x[i].mean((1, 2)).argmax())) for i in range(len(x))]
"""
GREEDY = """
model = dict(
    type="AutoSlim",
    architecture=dict(type="plain:net"),
    mutator=dict(
        type="OneShotChannelMutator",
        channel_unit_cfg=dict(
            type="OneShotMutableChannelUnit",
            default_args=dict(candidate_choices=[0.25, 0.5, 1.0], choice_mode="ratio"),
        ),
        parse_cfg=dict(type="ChannelAnalyzer", demo_input=(1, 3, 8, 8)),
    ),
)
data = dict(type="plain:samples")
checkpoint = "supernet.pth"
calibration = dict(num_samples=32)
deploy = dict(input_shapes=[(3, 8, 8)])
search = dict(type="greedy", targets=[0.02, 0.04])
executor = dict(type="inline")
"""


@pytest.fixture
def supernet(tmp_path):
    """``supernet(...) -> name`` of a recipe in the test's folder, with a checkpoint of random weights."""

    def make(extra=(), slow=0.0, executor="inline", more=""):
        (tmp_path / "snet.py").write_text(NET)
        names: dict[str, object] = {}
        exec(NET, names)
        torch.manual_seed(0)
        torch.save({"state_dict": names["net"](extra=extra).state_dict()}, tmp_path / "supernet.pth")
        recipe = tmp_path / "search_recipe.py"
        recipe.write_text(RECIPE.format(extra=list(extra), slow=slow, executor=executor) + more)
        return recipe.name

    return make


def _report(work):
    return json.loads((work / "report.json").read_text())


def test_subnet_weights_and_report(cli, supernet, tmp_path):
    recipe = supernet(more='search["constraints"] = dict(macs=(0.0, "60%"))\n')
    result = cli("search", recipe, "--work-dir", "work")
    assert result.code == 0, result.err
    report = _report(tmp_path / "work")
    chosen = report["chosen"]
    assert result.out.splitlines()[-1].startswith(f"PASSED: top1 {chosen['score']:.2f} at ")
    scores = [one["score"] for one in report["candidates"]]
    assert chosen["score"] == max(scores) == chosen["exported"]["top1"]
    assert len({json.dumps(one["subnet"], sort_keys=True) for one in report["candidates"]}) == len(scores) == 18
    limit = report["search"]["constraints"]["macs"][1]
    assert all(one["costs"]["macs"] <= limit for one in report["candidates"])
    subnet = yaml.safe_load((tmp_path / "work" / "fix_subnet.yaml").read_text())
    assert {name: entry["chosen"] for name, entry in subnet.items()} == chosen["subnet"]
    page = (tmp_path / "work" / "report.html").read_text()
    assert f"subnet {chosen['number']}" in page
    assert 'class="picked"' in page
    # The files give the same accuracy in a process of its own, as an artifact.
    work = ("--subnet", "work/fix_subnet.yaml", "--checkpoint", "work/subnet.pth")
    assert cli("export", recipe, *work, "--slice-weight", "--out", "sliced").code == 0
    again = cli("evaluate", "sliced")
    assert f"{chosen['score']:.2f}" in again.out, again.out + again.err


def test_candidates_that_fail_are_recorded(cli, supernet, tmp_path):
    recipe = supernet(extra=("nan", "boom"))
    result = cli("search", recipe, "--work-dir", "work", "--set", "search.type=random", "search.max_candidates=40")
    # The options of evolution are no options of random search.
    assert result.code == 2
    assert "unknown key 'max_epochs' in 'search'" in result.error
    recipe = supernet(extra=("nan", "boom"), more="search = dict(type='random', max_candidates=45)\n")
    result = cli("search", recipe, "--work-dir", "work")
    assert result.code == 0, result.err
    report = _report(tmp_path / "work")
    assert report["evaluated"] == 45
    assert report["failed"] == 18
    errors = {one.get("error", "").partition(":")[0] for one in report["candidates"]}
    assert errors == {"", "ValueError", "ModelError"}
    assert "boom" in (tmp_path / "work" / "report.html").read_text()
    assert "18 of 45 candidates failed" in result.out


def _stop_at(count, number):
    """Signal the process once its journal has ``count`` candidates."""

    def started(pid: int, err: Path) -> None:
        journal = err.parent / "work" / "candidates.jsonl"
        end = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") <= count:
            assert time.monotonic() < end, "no candidates"
            time.sleep(0.01)
        os.kill(pid, number)

    return started


def test_interrupted_and_resumed_gives_the_same(cli, supernet, tmp_path):
    recipe = supernet(slow=0.02)
    result = cli("search", recipe, "--work-dir", "work", started=_stop_at(8, signal.SIGINT))
    assert result.code == 130, result.err
    assert "resume with: razordeploy search" in result.err
    assert not (tmp_path / "work" / "fix_subnet.yaml").exists()
    known = (tmp_path / "work" / "candidates.jsonl").read_bytes().count(b"\n") - 1
    assert 8 <= known < 18
    assert cli("search", recipe, "--work-dir", "work").code == 0
    assert cli("search", recipe, "--work-dir", "whole").code == 0
    resumed, whole = _report(tmp_path / "work"), _report(tmp_path / "whole")
    assert resumed["from_journal"] == known
    for key in ("subnet", "score", "costs"):
        assert [one[key] for one in resumed["candidates"]] == [one[key] for one in whole["candidates"]]
    subnets = [(tmp_path / work / "fix_subnet.yaml").read_bytes() for work in ("work", "whole")]
    assert subnets[0] == subnets[1]


def test_killed_outright_worker_and_search(cli, supernet, tmp_path):
    recipe = supernet(slow=0.05, executor="local")
    search = (sys.executable, "-m", "razordeploy.cli.main", "search", recipe, "--work-dir", "work")
    root = str(Path(__file__).resolve().parents[2])
    journal = tmp_path / "work" / "candidates.jsonl"
    process = subprocess.Popen(
        search, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_for('"score"', journal)
    first = _workers(process.pid)
    os.kill(first[0], signal.SIGKILL)
    killed_at = journal.read_bytes().count(b"\n")
    end = time.monotonic() + 60
    while journal.read_bytes().count(b"\n") < killed_at + 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    second = _workers(process.pid)
    assert second
    assert second != first
    process.kill()
    process.communicate()
    result = cli("search", recipe, "--work-dir", "work", "--set", "executor.type=inline")
    assert result.code == 0, result.err
    report = _report(tmp_path / "work")
    assert (report["evaluated"], report["failed"]) == (18, 0)
    assert report["from_journal"] >= 3
    end = time.monotonic() + 20
    while Path(f"/proc/{second[0]}").exists():  # a worker does not outlive its search
        assert time.monotonic() < end
        time.sleep(0.05)


def _workers(pid):
    # A worker is the child of the thread that started it.
    children = [c for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, line in lines.items() if b"razordeploy.executors.worker" in line]


def test_limits_that_cannot_be_met(cli, supernet, tmp_path):
    recipe = supernet()
    result = cli("search", recipe, "--set", "search.constraints={'macs': (0, 0.001)}")
    assert result.code == 2
    assert "no subnet has macs in [0, 0.001]: this space reaches macs [0.006" in result.error
    result = cli("search", recipe, "--set", "search.constraints={'mac': 1}")
    assert result.code == 2
    assert "unknown constraint 'mac'" in result.error
    assert "did you mean 'macs'" in result.error


def test_weights_of_another_space_and_none(cli, supernet):
    recipe = supernet()
    result = cli("search", recipe, "--set", "model.width=8")
    assert result.code == 2
    assert "is it of another search space than" in result.error
    result = cli("search", recipe, "--set", "checkpoint=None")
    assert result.code == 2
    assert "a search needs a trained supernet" in result.error
    result = cli("search", recipe, "--set", "checkpoint=nowhere.pth")
    assert result.code == 2
    assert "no trained supernet 'nowhere.pth'; razordeploy train " in result.error
    result = cli("search", recipe, "--checkpoint", "nowhere.pth")
    assert result.code == 2
    assert "search space" not in result.error


def test_nothing_to_choose_and_no_labels(cli, tiny, supernet):
    result = cli("search", tiny(search=dict(type="random")), "--checkpoint", "tiny.py")
    assert result.code == 2
    recipe = supernet()
    result = cli("search", recipe, "--set", "data=None")
    assert result.code == 2
    assert "labelled data" in result.error


def test_from_supernet_to_engine(cli, tmp_path):
    """Train, search, export, quantize: each by its verb, on what the one before wrote."""
    sets = ("--set", "model.architecture.width=6", "train.epochs=3", "executor={'type': 'inline'}")
    sets += ("search.max_epochs=1", "search.num_candidates=4", "search.num_mutation=2", "search.num_crossover=2")
    recipe = "nas/digits/spos_search.py"
    assert cli("train", recipe, "--work-dir", "net", *sets).code == 0
    found = cli("search", recipe, "--checkpoint", "net/supernet.pth", "--work-dir", "found", *sets)
    assert found.code == 0, found.err
    report = _report(tmp_path / "found")
    assert report["chosen"]["score"] > 30  # chance is 10
    files = ("--subnet", "found/fix_subnet.yaml", "--checkpoint", "found/subnet.pth")
    made = cli("export", recipe, *files, "--slice-weight", "--out", "sliced", *sets)
    assert made.code == 0, made.err
    quick = ("--backend", "onnxruntime", "--benchmark-seconds", "0", "--max-drop", "5")
    engine = cli("ptq", "sliced", "--work-dir", "engine", *quick)
    assert engine.code == 0, engine.err + engine.out
    measured = _report(tmp_path / "engine")["backends"]["onnxruntime"]
    assert measured["passed"]
    assert measured["coverage"]["int8"] > 0


def test_greedy_slimming_writes_a_file_for_each_target(cli, tmp_path):
    """Channels of a plain network: units, not mutables; random weights."""
    (tmp_path / "plain.py").write_text(PLAIN)
    names: dict[str, object] = {}
    exec(PLAIN, names)
    torch.save({"state_dict": names["net"]().state_dict()}, tmp_path / "supernet.pth")
    (tmp_path / "greedy.py").write_text(GREEDY)
    result = cli("search", "greedy.py", "--work-dir", "work")
    assert result.code == 0, result.err
    report = _report(tmp_path / "work")
    assert report["candidates"][0]["costs"]["macs"] == max(one["costs"]["macs"] for one in report["candidates"])
    assert list(report["targets"]) == ["0.04", "0.02"]
    for target, name in report["targets"].items():
        macs = float(name.removeprefix("FLOPS_").removesuffix("M.yaml"))
        assert macs <= float(target) + 0.005
        units = yaml.safe_load((tmp_path / "work" / name).read_text())["channel_unit_cfg"]["units"]
        assert len(units) >= 2
    assert report["chosen"]["costs"]["macs"] <= 0.02
    assert report["chosen"]["exported"]["top1"] == report["chosen"]["score"]
