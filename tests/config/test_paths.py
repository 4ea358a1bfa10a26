"""Finding recipes and backend configs, in a repository and in a wheel."""

from pathlib import Path

import pytest

from razordeploy.config import paths
from razordeploy.errors import RazorDeployError, RecipeError


@pytest.fixture
def layout(tmp_path, monkeypatch):
    """A repository with two recipes, and a working directory elsewhere."""
    (tmp_path / "repo" / "razordeploy").mkdir(parents=True)
    (tmp_path / "repo" / "recipes" / "ptq").mkdir(parents=True)
    (tmp_path / "repo" / "recipes" / "_base_").mkdir()
    (tmp_path / "repo" / "recipes" / "ptq" / "resnet.py").touch()
    (tmp_path / "repo" / "recipes" / "_base_" / "part.py").touch()
    (tmp_path / "cwd").mkdir()
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "repo" / "razordeploy")
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path


@pytest.mark.parametrize("name", ["ptq/resnet.py", "recipes/ptq/resnet.py", Path("ptq/resnet.py")])
def test_shipped_recipe_is_found_from_anywhere(layout, name):
    assert paths.resolve_recipe(name) == layout / "repo/recipes/ptq/resnet.py"


def test_working_directory_comes_before_shipped(layout):
    mine = layout / "cwd" / "ptq" / "resnet.py"
    mine.parent.mkdir()
    mine.touch()
    assert paths.resolve_recipe("ptq/resnet.py") == mine


def test_wheel_comes_before_what_lies_beside_the_package(layout):
    assert paths.recipes_dir() == layout / "repo/recipes"
    inside = layout / "repo/razordeploy/_data/recipes"
    inside.mkdir(parents=True)
    assert paths.recipes_dir() == inside


def test_bases_are_not_offered(layout):
    assert paths.shipped_recipes() == ("ptq/resnet.py",)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ptq/resent.py", "no recipe 'ptq/resent.py'; did you mean 'ptq/resnet.py'?"),
        ("recipes/ptq/resne.py", "no recipe 'recipes/ptq/resne.py'; did you mean 'ptq/resnet.py'?"),
        ("ptq", "expected a recipe file, 'ptq' is a folder; name a file in it"),
        ("", "expected the path of a recipe, got an empty string; write for example ptq/x.py"),
    ],
)
def test_missing_recipe_names_the_nearest(layout, name, text):
    with pytest.raises(RecipeError) as caught:
        paths.resolve_recipe(name)
    assert str(caught.value) == text


def test_nearest_looks_beside_the_missing_file_too(layout):
    (layout / "cwd" / "mine.py").touch()
    with pytest.raises(RecipeError, match=r"no recipe 'mien.py'; did you mean 'mine.py'\?$"):
        paths.resolve_recipe("mien.py")


def test_broken_installation_says_so(layout):
    with pytest.raises(RazorDeployError, match="'backend_configs' is missing from this installation"):
        paths.backend_configs_dir()
