"""The scripts: what they install and when, what they say, and what they exit with. A stub takes the place of python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Answers `-c` like the real one, and writes down every `-m`; fails those that BROKEN names.
STUB = f"""#!/usr/bin/env bash
if [ "$1" != -m ]; then exec {sys.executable} "$@"; fi
echo "$*" >>"$CALLS"
[ "$2" != pytest ] || echo '=== 3 passed, 1 skipped in 0.01s ==='
case " $BROKEN " in *" $2 "*) echo "$2 is broken"; exit 1 ;; esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A repository with the scripts alone, and an environment whose python is the stub."""
    root = tmp_path / "a checkout"
    (root / "requirements").mkdir(parents=True)
    shutil.copytree(ROOT / "tools", root / "tools", ignore=shutil.ignore_patterns("bench", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    shutil.copy(ROOT / "requirements" / "constraints.txt", root / "requirements")
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(STUB)
    python.chmod(0o755)
    return root


def _bash(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    stub = {"RAZORDEPLOY_VENV": str(cwd / "venv"), "CALLS": str(cwd / "calls"), "BROKEN": ""}
    environment = {**os.environ, **stub, **env}
    return subprocess.run(["bash", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def _calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text().splitlines() if file.exists() else []


def _install(checkout: Path, *extras: str) -> list[str]:
    """What pip was asked for by installing ``extras`` one after the other."""
    lines = "; ".join(f"install {extra}" for extra in extras)
    done = _bash("-euc", f". '{checkout}/tools/environment.sh'; {lines}", cwd=checkout.parent)
    assert done.returncode == 0, done.stderr
    return [line.rpartition(" -e ")[2] for line in _calls(checkout.parent)]


def test_install_asks_pip_once_per_set_of_extras(checkout):
    assert _install(checkout, "demo", "demo", "all,dev", "demo") == [f"{checkout}[demo]", f"{checkout}[all,dev]"]
    assert all(f"-c {checkout}/requirements/constraints.txt" in line for line in _calls(checkout.parent))


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements/constraints.txt"])
def test_install_asks_again_when_requirements_change(checkout, name):
    _install(checkout, "demo", "all,dev")
    with (checkout / name).open("a") as file:
        file.write("\n")
    assert len(_install(checkout, "demo", "demo", "all,dev")) == 4


def test_install_asks_again_for_another_checkout(checkout, tmp_path):
    _install(checkout, "demo")
    other = shutil.copytree(checkout, tmp_path / "another")
    assert len(_install(other, "demo")) == 2


def test_failed_install_is_not_remembered(checkout):
    script = f". '{checkout}/tools/environment.sh'; install demo"
    failed = _bash("-euc", script, cwd=checkout.parent, BROKEN="pip")
    assert failed.returncode == 2
    assert "error: pip could not install razordeploy[demo]" in failed.stderr
    assert len(_install(checkout, "demo")) == 2


@pytest.mark.parametrize("script", ["demo.sh", "test.sh"])
def test_old_python_is_refused_in_one_line(checkout, tmp_path, script):
    old = tmp_path / "old-python"
    old.write_text('#!/usr/bin/env bash\n[ "$1" != -V ] || { echo "Python 3.9.18"; exit 0; }\nexit 1\n')
    old.chmod(0o755)
    done = _bash(checkout / "tools" / script, cwd=tmp_path, RAZORDEPLOY_VENV=str(tmp_path / "new"), PYTHON=str(old))
    assert done.returncode == 2
    assert "expected Python 3.10 to 3.13" in done.stderr
    assert "Python 3.9.18" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_test_script_runs_every_check(checkout, tmp_path):
    done = _bash(checkout / "tools" / "test.sh", "-k", "layering", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = [line.split()[1] for line in _calls(tmp_path)]
    assert ran == ["pip", "ruff", "ruff", "mypy", "pytest"]
    assert _calls(tmp_path)[-1] == "-m pytest -n 2 --dist loadfile -k layering"
    assert done.stdout.splitlines()[-1] == "=== 3 passed, 1 skipped in 0.01s ==="


@pytest.mark.parametrize("broken", ["ruff", "mypy", "pytest"])
def test_test_script_goes_on_after_a_failure_and_reports_it(checkout, tmp_path, broken):
    done = _bash(checkout / "tools" / "test.sh", cwd=tmp_path, BROKEN=broken)
    assert done.returncode == 1
    assert f"{broken} is broken" in done.stdout
    assert any(line.startswith(broken) and "FAILED" in line for line in done.stdout.splitlines())
    assert [line.split()[1] for line in _calls(tmp_path)][-1] == "pytest"
    assert done.stdout.splitlines()[-2:] == ["some checks FAILED", "=== 3 passed, 1 skipped in 0.01s ==="]


def test_ci_uses_an_environment_of_its_own(tmp_path):
    root = tmp_path / "checkout"
    (root / ".ci").mkdir(parents=True)
    (root / "tools").mkdir()
    shutil.copy(ROOT / ".ci" / "run", root / ".ci")
    assert os.access(root / ".ci" / "run", os.X_OK)
    (root / "tools" / "test.sh").write_text('echo "$PWD $RAZORDEPLOY_VENV"; cat; exit 7\n')
    done = subprocess.run([root / ".ci" / "run"], cwd="/", capture_output=True, text=True, check=False, input="typed")
    where, environment = done.stdout.split()
    assert (done.returncode, where) == (7, str(root))
    assert not Path(environment).parent.exists()
    assert not Path(environment).is_relative_to(root)


@pytest.mark.parametrize("name", ["train", "ptq", "test"])
def test_python_scripts_are_thin(name, tmp_path):
    script = ROOT / "tools" / f"{name}.py"
    assert len(script.read_text().splitlines()) <= 40
    words = [sys.executable, str(script), "nothing.py", "--cfg-options", "broken"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: --set: expected KEY=VALUE, got 'broken'; for example --set deploy.max_drop=0.5\n"


def test_training_on_several_processes_and_machines(checkout, tmp_path):
    stub = tmp_path / "venv" / "bin" / "python"
    script = checkout / "tools" / "dist_train.sh"
    assert _bash(script, "r.py", cwd=tmp_path).returncode == 2
    env = {"PYTHON": str(stub), "NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node-a", "PORT": "1234"}
    done = _bash(script, "r.py", "4", "--amp", "--cfg-options", "train.lr=1", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    (line,) = _calls(tmp_path)
    assert line.startswith("-m torch.distributed.run --nnodes 2 --node-rank 1 --nproc-per-node 4 --master-addr node-a ")
    assert line.endswith(
        f"--master-port 1234 {checkout}/tools/train.py r.py --launcher pytorch --amp --cfg-options train.lr=1"
    )


def test_training_on_slurm(checkout, tmp_path):
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text('#!/usr/bin/env bash\nprintf "%s|" "$@"\n')
    srun.chmod(0o755)
    script = checkout / "tools" / "slurm_train.sh"
    assert _bash(script, "part", "name", "r.py", cwd=tmp_path).returncode == 2
    path = f"{srun.parent}{os.pathsep}{os.environ['PATH']}"
    env = {"PATH": path, "PYTHON": "python3", "GPUS": "4", "SRUN_ARGS": "--time 10 --quiet"}
    done = _bash(script, "part", "my job", "r.py", "work", "--resume", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("|")[:-1] == [
        *("--partition", "part", "--job-name", "my job", "--ntasks", "4", "--ntasks-per-node", "4", "--gres", "gpu:4"),
        *("--cpus-per-task", "5", "--kill-on-bad-exit", "1", "--time", "10", "--quiet"),
        *("python3", "-u", f"{checkout}/tools/train.py", "r.py", "--work-dir", "work", "--launcher", "slurm"),
        "--resume",
    ]
