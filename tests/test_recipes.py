"""Every shipped recipe and every backend YAML loads, and neither takes a key that nothing reads."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from razordeploy.backends.registry import BUILT_IN, find_backend
from razordeploy.config.backend_spec import load_backend_spec
from razordeploy.config.paths import backend_configs_dir, recipes_dir, shipped_recipes
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import MissingDependency, RecipeError

RECIPES = shipped_recipes()
BACKENDS = sorted(backend_configs_dir().glob("*.yaml"))


def _with_bases(file: Path) -> str:
    """The text of a recipe and of the shipped ones that it builds on."""
    text = file.read_text()
    bases = re.findall(r'"(\.\.?/[^"]+\.py)"', text)
    return text + "".join(_with_bases((file.parent / base).resolve()) for base in bases)


def _need_bases(recipe: str) -> None:
    """Skip a recipe whose base is in a package that is not installed."""
    text = _with_bases(recipes_dir() / recipe)
    for package in ("mmcls", "mmpretrain", "mmdet", "mmdet3d", "mmseg"):
        if f'"{package}::' in text and importlib.util.find_spec(package) is None:
            pytest.skip(f"{recipe} builds on {package}, which is not installed")


def test_something_is_shipped():
    assert "ptq/digits_resnet8.py" in RECIPES
    assert {"openvino", "onnxruntime"} <= {path.stem for path in BACKENDS}
    # Subnet files that recipes name lie beside them.
    known = (".py", ".pyc", ".yaml")
    outside = [path for path in recipes_dir().rglob("*") if path.is_file() and path.suffix not in known]
    assert outside == []


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_loads(name):
    _need_bases(name)
    recipe = load_recipe(name)
    assert recipe.name == Path(name).stem
    assert recipe.deploy.backends
    assert set(recipe.deploy.backends) <= set(BUILT_IN)
    assert recipe.path.is_relative_to(recipes_dir())


# The sections are read by the same code in all recipes: one alone, and one on an OpenMMLab base.
@pytest.mark.parametrize("name", ["ptq/digits_resnet8.py", "ptq/mmcls_resnet18_cifar10.py"])
@pytest.mark.parametrize(
    ("line", "wrong", "right"),
    [
        ("quantise = dict()", "quantise", "quantize"),
        ("quantize = dict(global_qconfg=dict())", "global_qconfg", "global_qconfig"),
        ("deploy = dict(max_dorp=1.0)", "max_dorp", "max_drop"),
        ("calibration = dict(num_sample=1)", "num_sample", "num_samples"),
    ],
)
def test_recipe_with_a_typo_fails(tmp_path, name, line, wrong, right):
    _need_bases(name)
    child = tmp_path / "child.py"
    child.write_text(f"_base_ = [{str(recipes_dir() / name)!r}]\n{line}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(child)
    assert wrong in str(caught.value)
    assert f"'{right}'" in str(caught.value)


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.stem)
def test_backend_yaml_loads(path):
    spec = load_backend_spec(path)
    assert spec.name == path.stem
    assert spec.name in BUILT_IN
    assert spec.summary
    assert spec.ops


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.stem)
def test_backend_yaml_is_what_its_backend_reads(path):
    try:
        backend = find_backend(path.stem)
    except MissingDependency as missing:
        pytest.skip(str(missing))
    assert backend.spec == load_backend_spec(path)


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: path.stem)
@pytest.mark.parametrize("where", ["top", "activation", "weight", "ops"])
def test_backend_yaml_with_a_typo_fails(tmp_path, path, where):
    raw = yaml.safe_load(path.read_text())
    kind = next(iter(raw["ops"]))
    place = {"top": raw, "activation": raw.setdefault("activation", {}), "weight": raw.setdefault("weight", {})}
    place["ops"] = raw["ops"][kind]
    wrong, right = {"top": ("summry", "summary"), "ops": ("inpts", "inputs")}.get(where, ("bit", "bits"))
    place[where][wrong] = 1
    bad = tmp_path / path.name
    bad.write_text(yaml.safe_dump(raw))
    with pytest.raises(RecipeError, match=f"unknown key '{wrong}'; did you mean '{right}'") as caught:
        load_backend_spec(bad)
    assert str(bad) in str(caught.value)
