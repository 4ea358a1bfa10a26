"""The wheel: what is in it, and that it works away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _run(*words: str | Path, cwd: Path) -> str:
    # A PYTHONPATH of the caller's would put this checkout before what is installed.
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([str(w) for w in words], cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("razordeploy-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of an environment that has the wheel, and sees the libraries of this one but not its razordeploy."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python3*/site-packages")
    # A path file names a folder only; the path files in that folder, such as an editable install's, are not read.
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def test_wheel_holds_the_data_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        info = {name.partition(".dist-info/")[2] for name in archive.namelist() if ".dist-info/" in name}
    for shipped in ("backend_configs", "recipes"):
        files = [p for p in (ROOT / shipped).rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        assert files
        assert {f"razordeploy/_data/{p.relative_to(ROOT).as_posix()}" for p in files} <= names
    package = [p for p in (ROOT / "razordeploy").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert "razordeploy/report/templates/page.html.jinja" in names
    assert {p.relative_to(ROOT).as_posix() for p in package} <= names
    assert {name.partition("/")[0] for name in names} == {"razordeploy"}
    assert not [name for name in names if "__pycache__" in name]
    assert {"licenses/LICENSE", "entry_points.txt"} <= info


def test_installed_wheel_finds_its_own_data(installed, tmp_path):
    script = (
        "import razordeploy, razordeploy.report.html\n"
        "from razordeploy.config.paths import backend_configs_dir, recipes_dir\n"
        "from razordeploy.config.recipe import load_recipe\n"
        "print(razordeploy.__file__, backend_configs_dir(), recipes_dir(), load_recipe('ptq/digits_resnet8.py').path)"
    )
    for path in _run(installed, "-c", script, cwd=tmp_path).split():
        assert Path(path).is_relative_to(installed.parents[1]), path


def test_installed_command_works(installed, tmp_path):
    out = _run(installed.parent / "razordeploy", "backends", cwd=tmp_path)
    for config in (ROOT / "backend_configs").glob("*.yaml"):
        assert config.stem in out
    assert list(tmp_path.iterdir()) == []
