"""Reading recipes: what they resolve to, and one line for whatever is wrong with them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from razordeploy.config import recipe as recipe_module
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.errors import MissingDependency, RecipeError

MODEL = "model = dict(type='nets:small', width=4)\n"


@pytest.fixture
def write(tmp_path):
    """Write a recipe and return its path."""

    def write(text, name="mine.py"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def message(path, overrides=None, kind=RecipeError):
    with pytest.raises(kind) as caught:
        load_recipe(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_everything_in_one_recipe(write):
    path = write(
        MODEL
        + "checkpoint = 'w.pth'\nkey_mapping = {r'^module\\.': ''}\nstrict = False\nseed = 3\nwork_dir = 'out'\n"
        + "quantize = dict(skip=['head'])\ndeploy = dict(backends=['openvino'])\ncalibration = dict(num_samples=8)\n"
        + "data = dict(type='digits')\nval_dataloader = dict(batch_size=2)\ntrain = dict(epochs=1)\n"
    )
    recipe = load_recipe(path)
    assert recipe.name == "mine"
    assert recipe.path == path
    assert "key_mapping" in recipe.text
    assert recipe.model == {"type": "nets:small", "width": 4}
    assert (recipe.checkpoint, recipe.key_mapping, recipe.strict) == ("w.pth", {r"^module\.": ""}, False)
    assert (recipe.seed, recipe.work_dir, recipe.trust_checkpoint) == (3, "out", False)
    assert recipe.quantize.skip == ("head",)
    assert recipe.deploy.backends == ("openvino",)
    assert recipe.calibration.num_samples == 8
    assert recipe.data == {"type": "digits"}
    assert recipe.val_dataloader == {"batch_size": 2}
    assert recipe.calibrate_dataloader is None
    assert recipe.train == {"epochs": 1}


def test_defaults(write):
    recipe = load_recipe(write(MODEL))
    defaults = Recipe(name="", path=Path(), text="", config={}, model={})
    for key in ("checkpoint", "strict", "trust_checkpoint", "quantize", "deploy", "calibration", "seed", "data"):
        assert getattr(recipe, key) == getattr(defaults, key), key


def test_yaml_and_json(write):
    content = {"model": {"type": "nets:small"}, "deploy": {"input_shape": [3, 8, 8]}}
    for name in ("a.json", "a.yaml"):
        assert load_recipe(write(json.dumps(content), name)).deploy.input_shapes == ((3, 8, 8),)


def test_set_parses_literals(write):
    recipe = load_recipe(
        write(MODEL),
        {
            "deploy.max_drop": "0.5",
            "deploy.backends": "a,b",
            "deploy.dynamic_batch": "false",
            "model.width": "8",
            "model.shape": "(1, 2)",
            "checkpoint": "runs/1e3.pth",
            "quantize.skip": "['head', 'neck']",
        },
    )
    assert recipe.deploy.max_drop == 0.5
    assert recipe.deploy.backends == ("a", "b")
    assert recipe.deploy.dynamic_batch is False
    assert recipe.model == {"type": "nets:small", "width": 8, "shape": (1, 2)}
    assert recipe.checkpoint == "runs/1e3.pth"
    assert recipe.quantize.skip == ("head", "neck")


def test_fingerprint_follows_what_is_resolved(write):
    path = write(MODEL)
    same = load_recipe(path).fingerprint()
    assert len(same) == 64
    assert load_recipe(write("x = 1\ndel x\n" + MODEL, "other.py")).fingerprint() == same
    assert load_recipe(path, {"work_dir": "elsewhere"}).fingerprint() == same
    assert load_recipe(path, {"model.width": "5"}).fingerprint() != same
    assert load_recipe(path, {"seed": "1"}).fingerprint() != same


def test_fingerprint_has_no_memory_addresses(write):
    path = write(MODEL + "model['act'] = type('Act', (), {})\nmodel['tags'] = {'b', 'a'}\n")
    assert load_recipe(path).fingerprint() == load_recipe(path).fingerprint()


def test_data_root_reaches_the_datasets(write):
    path = write(
        MODEL
        + "data_root = 'old'\nval_dataloader = dict(dataset=dict(data_root=data_root))\n"
        + "test_dataloader = dict(dataset=dict())\ntrain_dataloader = dict(dataset=dict(data_root='fixed'))\n"
        + "calibrate_dataloader = dict(dataset=dict(type='Repeat', dataset=dict()))\n"
    )

    def roots(recipe):
        loaders = (recipe.val_dataloader, recipe.test_dataloader, recipe.train_dataloader, recipe.calibrate_dataloader)
        return [loader["dataset"].get("data_root") for loader in loaders]

    assert roots(load_recipe(path)) == ["old", "old", "fixed", None]
    assert roots(load_recipe(path, {"data_root": "new"})) == ["new", "new", "fixed", None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = dict(a=1\ny = 2\n", "{path}:1: syntax error: '(' was never closed"),
        ("x = 1\n\ny = x / 0\n", "{path}:3: ZeroDivisionError: division by zero"),
        ("def f():\n    return {}['a']\nx = f()\n", "{path}:3: KeyError: 'a'"),
        ("raise SystemExit(0)\n", "{path}:1: SystemExit: 0"),
        ("x = open('nowhere')\n", "{path}:1: FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'"),
        ("_base_ = ['nope.py']\n", "{path}: no base config '{folder}/nope.py'; check _base_"),
        ("", "{path}: no 'model' section; write model=dict(type='pkg.module:factory', ...)"),
        ("model = 'resnet'\n", "{path}: expected a dict for 'model', got str"),
        (
            "model = dict(depth=3)\n",
            "{path}: 'model' needs a type, got None; type='pkg.module:factory', the name of a registered "
            "classifier such as 'ImageClassifier', or onnx='model.onnx'",
        ),
        (
            MODEL + "quantise = dict()\n",
            "{path}: unknown key 'quantise' (did you mean 'quantize'?); start it with '_' if it is a variable of your "
            "own",
        ),
        (
            MODEL + "deply = dict()\n",
            "{path}: unknown key 'deply' (did you mean 'deploy'?); start it with '_' if it is a variable of your own",
        ),
        (MODEL + "deploy = dict(max_dorp=1)\n", "{path}: unknown key 'max_dorp' in 'deploy'; did you mean 'max_drop'?"),
        (MODEL + "seed = 'x'\n", "{path}: expected an integer from 0 to 4294967295 for 'recipe.seed', got str 'x'"),
        (MODEL + "strict = 1\n", "{path}: expected True or False for 'recipe.strict', got int 1"),
        (MODEL + "val_dataloader = [1]\n", "{path}: expected a dict for 'val_dataloader', got list"),
        (
            MODEL + "key_mapping = {'(': ''}\n",
            "{path}: '(' in 'key_mapping' is not a regular expression: missing ), unterminated subpattern at "
            "position 0",
        ),
        (
            MODEL + "key_mapping = ['a']\n",
            "{path}: expected a dict of regex -> replacement for 'key_mapping', got ['a']",
        ),
    ],
)
def test_bad_recipe(write, text, expected):
    path = write(text)
    assert message(path) == expected.format(path=path, folder=path.parent)


def test_names_that_mmengine_reads_and_private_ones_are_left_alone(write):
    recipe = load_recipe(write(MODEL + "train_cfg = dict()\nload_from = None\n_deply = 1\nimage_side = 32\n"))
    assert recipe.config["image_side"] == 32


def test_error_in_a_base_names_the_base(write, tmp_path):
    write("x = 1\ny = x / 0\n", "base.py")
    path = write("_base_ = ['base.py']\n" + MODEL)
    assert message(path) == f"{tmp_path}/base.py:2: ZeroDivisionError: division by zero"
    write("x = (\n", "base.py")
    assert message(path) == f"{tmp_path}/base.py:1: syntax error: '(' was never closed"


def test_other_formats(write):
    assert message(write("", "a.toml")).startswith("expected a recipe that ends in .py, .yaml, .yml, .json, got '")
    path = write("[1, 2]", "a.json")
    assert message(path) == f"{path}: expected a mapping of sections at the top; see the shipped recipes"
    path = write('{"a":', "b.json")
    assert message(path) == f"{path}: JSONDecodeError: Expecting value: line 1 column 6 (char 5)"
    path.write_bytes(b"\xff\xfe")
    assert message(path).startswith(f"{path}: expected UTF-8 text, got other bytes at position 0")


def test_yaml_runs_no_code(write, tmp_path):
    marker = tmp_path / "marker"
    path = write(f"model: !!python/object/apply:os.system ['touch {marker}']\n", "a.yaml")
    assert "could not determine a constructor for the tag" in message(path)
    write(f"model: !!python/object/apply:os.system ['touch {marker}']\n", "base.yaml")
    assert "could not determine a constructor for the tag" in message(write("_base_: base.yaml\n", "b.yaml"))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("nothing.here", "1", "--set nothing.here: nothing reads 'nothing'; variables of a recipe are used before"),
        ("width", "1", "--set width: nothing reads 'width'"),
        ("deploy..x", "1", "--set expects key.sub=value, got 'deploy..x=1'"),
        ("deploy.max_drop", "lots", "{path}: expected a number of at least 0 for 'deploy.max_drop', got str 'lots'"),
        ("model.type.x", "1", "--set model.type.x: it does not fit '{path}': "),
    ],
)
def test_bad_set(write, key, value, expected):
    path = write("width = 3\n" + MODEL)
    assert message(path, {key: value}).startswith(expected.format(path=path))


def test_absent_package_gives_its_pip_line(write, monkeypatch):
    from mmengine.config import config as mm

    monkeypatch.setattr(mm, "is_installed", lambda package: False)
    path = write("_base_ = ['mmpretrain::resnet/resnet18_8xb32_in1k.py']\n")
    assert message(path, kind=MissingDependency) == (
        f"{path} builds on 'mmpretrain', which is not installed; pip install 'razordeploy[openmmlab]'"
    )
    path = write("_base_ = ['mmcls::resnet/resnet18_8xb32_in1k.py']\n")
    assert message(path, kind=MissingDependency) == (
        f"{path} builds on 'mmcls', which is not installed; pip install 'razordeploy[mmcls]'"
    )


def test_setuptools_without_pkg_resources(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    text = message(write("_base_ = ['mmcls::resnet/resnet18_8xb32_in1k.py']\n"), kind=MissingDependency)
    assert text.endswith("which setuptools 82 removed; pip install 'setuptools<82'")


def test_mmcls_base(write):
    pytest.importorskip("mmcls", reason="reads a config of mmcls")
    recipe = load_recipe(write("_base_ = ['mmcls::resnet/resnet18_8xb16_cifar10.py']\n"))
    assert recipe.model["type"] == "ImageClassifier"
    assert recipe.model["backbone"]["depth"] == 18
    assert recipe.config["default_scope"] == "mmcls"
    assert type(recipe.model["backbone"]) is dict


def test_missing_mmcls_base(write):
    pytest.importorskip("mmcls", reason="reads a config of mmcls")
    path = write("_base_ = ['mmcls::resnet/resnet18_nope.py']\n")
    text = message(path)
    assert text.startswith(f"{path}: no base config '")
    assert text.endswith("/resnet/resnet18_nope.py'; check _base_")


def test_reading_the_module_imports_neither_torch_nor_mmengine():
    code = f"import sys, {recipe_module.__name__}; sys.exit(bool({{'torch', 'mmengine', 'yaml'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_list_of_transforms_is_no_pipeline_of_ours(write):
    transforms = "pipeline = [dict(type='LoadImageFromFile'), dict(type='PackClsInputs')]\n"
    assert load_recipe(write(MODEL + transforms)).pipeline == ()
    assert [stage.stage for stage in load_recipe(write(MODEL + "pipeline = [dict(stage='ptq')]\n")).pipeline] == ["ptq"]
    assert "stage" in message(write(MODEL + "pipeline = [dict(type='x'), dict(stag='ptq')]\n"))
