"""pyproject and the constraints file against what the package imports and what its messages tell people to install."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CORE = {re.split(r"[^\w.-]", line)[0].lower() for line in PROJECT["dependencies"]}
SOURCES = sorted((ROOT / "razordeploy").rglob("*.py"))

# Import name -> distribution, where they differ.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "onnx_ir": "onnx-ir",
    "mmcv": "mmcv-lite",
    "cuda": "cuda-bindings",
}
# Imported where it is there, never asked for: another package's, or the reader's own.
NOT_OURS = {"__main__", "h5py", "mmdeploy"}


def _name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found - sys.stdlib_module_names - {"razordeploy"} - NOT_OURS


def _required(extra: str) -> list[str]:
    """Requirements of ``extra``, with those of the extras that it names."""
    found = []
    for line in EXTRAS[extra]:
        inner = re.fullmatch(r"razordeploy\[(.*)\]", line)
        found += [r for e in inner[1].split(",") for r in _required(e.strip())] if inner else [line]
    return found


def test_every_import_is_declared():
    declared = CORE | {_name(line) for extra in EXTRAS if extra != "dev" for line in _required(extra)}
    for file in SOURCES:
        for name in _imports(file):
            assert DISTRIBUTIONS.get(name, name).lower() in declared, f"{file} imports {name}"


def test_every_core_dependency_is_imported():
    used = {DISTRIBUTIONS.get(name, name).lower() for file in SOURCES for name in _imports(file)}
    assert CORE - used == {"setuptools"}  # for mmengine


def test_every_extra_in_a_message_exists():
    text = "\n".join(file.read_text() for file in SOURCES)
    named = set(re.findall(r"""extra=["'](\w+)["']""", text)) | set(re.findall(r"razordeploy\\*\[(\w+)\]", text))
    assert {"mmcls", "data"} <= named
    assert named <= EXTRAS.keys()


@pytest.mark.parametrize("path", sorted((ROOT / "backend_configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_backend_has_its_extra(path):
    spec = yaml.safe_load(path.read_text())
    assert spec["extra"] == path.stem
    declared = CORE | {_name(line) for line in _required(spec["extra"])}
    for module in (*spec.get("requires", ()), *spec.get("engine_requires", ())):
        module = module.partition(".")[0]
        assert DISTRIBUTIONS.get(module, module).lower() in declared


def test_all_takes_every_backend_that_a_cpu_runs():
    names = {path.stem for path in (ROOT / "backend_configs").glob("*.yaml")} - {"tensorrt"}
    assert {requirement for name in names for requirement in _required(name)} <= set(_required("all"))


def _pins() -> dict[str, str]:
    lines = (ROOT / "requirements" / "constraints.txt").read_text().splitlines()
    pins = {}
    for line in lines:
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"""([\w.-]+)==([\w.]+)( ; python_version >= "3\.\d+")?""", line)
        assert match, f"not a plain pin: {line}"
        assert _name(line) not in pins, f"pinned twice: {line}"
        pins[_name(line)] = match[2]
    return pins


def test_constraints_pin_everything_the_scripts_install():
    wanted = CORE | {_name(line) for extra in ("all", "dev", "bench") for line in _required(extra)}
    assert {name.replace("_", "-") for name in wanted} - _pins().keys() == set()


def test_constraints_fit_the_declared_ranges():
    packaging = pytest.importorskip("packaging.requirements", reason="comes with pytest")
    pins = _pins()
    for line in {*PROJECT["dependencies"], *_required("all"), *_required("dev"), *_required("bench")}:
        requirement = packaging.Requirement(line)
        assert requirement.specifier.contains(pins[_name(line)], prereleases=True), line


def test_version_is_written_once_more_only_in_the_package():
    import razordeploy

    assert razordeploy.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']} " in (ROOT / "CHANGELOG.md").read_text()
