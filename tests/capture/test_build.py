"""From a recipe to a model: plain factories, mmcls classifiers, weights, and the deploy form."""

import copy
import sys

import pytest
import torch
from torch import nn

from razordeploy.capture import openmmlab
from razordeploy.capture.build import build_model
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import CheckpointError, MissingDependency, ModelError

NETS = """
from torch import nn

def small(width, **kwargs):
    return nn.Sequential(nn.Linear(3, width, **kwargs), nn.ReLU())

def broken():
    raise ValueError('no such\\n  width')

def leaves():
    raise SystemExit(0)

def text():
    return 'a model'

three = 3
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Write a recipe beside a module of factories and load it."""
    for name in [key for key in sys.modules if key.partition(".")[0].startswith("nets")]:
        monkeypatch.delitem(sys.modules, name)

    def recipe(text, folder="a", nets=NETS, overrides=None):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "nets_here.py").write_text(nets)
        (tmp_path / folder / "r.py").write_text(text)
        return load_recipe(tmp_path / folder / "r.py", overrides)

    return recipe


def mm(recipe, config):
    pytest.importorskip("mmcls", reason="builds a classifier of mmcls")
    return recipe(f"_base_ = ['mmcls::{config}']\n")


def message(recipe, kind=ModelError):
    with pytest.raises(kind) as caught:
        build_model(recipe)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_factory_beside_the_recipe(recipe):
    path = list(sys.path)
    built = build_model(recipe("model = dict(type='nets_here:small', width=5, bias=False)\n"))
    assert sys.path == path
    assert built.module[0].out_features == 5
    assert built.module[0].bias is None
    assert not built.module.training
    assert built.preprocess is None
    assert built.input_shapes is None


def test_input_shapes_of_the_recipe(recipe):
    built = build_model(recipe("model = dict(type='nets_here:small', width=5)\ndeploy = dict(input_shape=(3,))\n"))
    assert built.input_shapes == ((3,),)


def test_two_recipes_with_modules_of_one_name(recipe):
    text = "model = dict(type='nets_here:small', width=5)\n"
    first, second = recipe(text, "a"), recipe(text, "b", nets=NETS.replace("nn.ReLU()", "nn.Tanh()"))
    assert isinstance(build_model(first).module[1], nn.ReLU)
    assert isinstance(build_model(second).module[1], nn.Tanh)
    assert isinstance(build_model(first).module[1], nn.ReLU)


def test_random_weights_follow_the_seed_and_leave_the_generator_alone(recipe):
    text = "model = dict(type='nets_here:small', width=5)\n"
    state = torch.get_rng_state()
    first = build_model(recipe(text)).module[0].weight
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(build_model(recipe(text)).module[0].weight, first)
    assert not torch.equal(build_model(recipe(text + "seed = 1\n")).module[0].weight, first)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("nets_here:smal", "'nets_here:smal': 'nets_here' has no 'smal'; did you mean 'small'?"),
        ("nets_here:three", "'nets_here:three': expected a class or a function, got int"),
        ("nets_here:broken", "model 'nets_here:broken' cannot be built: ValueError: no such width"),
        ("nets_here:leaves", "model 'nets_here:leaves' cannot be built: SystemExit: 0"),
        ("nets_here:text", "model 'nets_here:text': expected a torch.nn.Module, got str"),
        ("nets_gone:small", "no module 'nets_gone'; looked in {folder} and in what is installed"),
        ("nets_here.sub:small", "no module 'nets_here.sub'; looked in {folder} and in what is installed"),
        ("nets here:small", "expected a model type of the form 'pkg.module:factory', got 'nets here:small'"),
        (":small", "expected a model type of the form 'pkg.module:factory', got ':small'"),
    ],
)
def test_bad_factory(recipe, kind, text):
    loaded = recipe(f"model = dict(type='{kind}')\n")
    assert message(loaded) == text.format(folder=loaded.path.parent)


@pytest.mark.parametrize(
    ("nets", "text"),
    [
        ("import nets_absent\n", "importing 'nets_here' failed: No module named 'nets_absent'; install nets_absent"),
        ("1 / 0\n", "importing 'nets_here' failed: ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(0)\n", "importing 'nets_here' failed: SystemExit: 0"),
    ],
)
def test_module_that_cannot_be_imported(recipe, nets, text):
    path = list(sys.path)
    assert message(recipe("model = dict(type='nets_here:small')\n", nets=nets)) == text
    assert sys.path == path


def test_unknown_argument_of_the_factory(recipe):
    text = message(recipe("model = dict(type='nets_here:small', width=5, deep=1)\n"))
    assert text.startswith("model 'nets_here:small' cannot be built: TypeError: ")
    assert text.endswith("unexpected keyword argument 'deep'")


def test_checkpoint_of_the_recipe_and_of_the_caller(recipe, tmp_path):
    text = "model = dict(type='nets_here:small', width=5)\nkey_mapping = {r'^module\\.': ''}\n"
    for name, value in (("mine.pth", 1.0), ("other.pth", 2.0)):
        weights = {"module.0.weight": torch.full((5, 3), value), "module.0.bias": torch.zeros(5)}
        (tmp_path / "a").mkdir(exist_ok=True)
        torch.save(weights, tmp_path / "a" / name)
    beside = recipe(text + "checkpoint = 'mine.pth'\n")
    assert build_model(beside).module[0].weight.unique().item() == 1.0
    assert build_model(beside, tmp_path / "a" / "other.pth").module[0].weight.unique().item() == 2.0
    missing = message(recipe(text + "checkpoint = 'gone.pth'\n"), CheckpointError)
    assert missing == "no checkpoint 'gone.pth'; check the path"


def test_mmcls_classifier_becomes_a_plain_module(recipe):
    loaded = mm(recipe, "resnet/resnet18_8xb16_cifar10.py")
    built = build_model(loaded)
    x = torch.rand(2, 3, 32, 32)
    original = openmmlab.build_classifier(loaded)
    assert set(original.state_dict()) == set(built.module.state_dict())
    original.load_state_dict(built.module.state_dict())
    expected = original.eval()(x, mode="tensor")
    assert built.input_shapes == ((3, 32, 32),)
    assert [name for name, _ in built.module.named_children()] == ["backbone", "neck", "head"]
    assert isinstance(built.module, type(original))
    assert torch.equal(built.module(x), expected)
    assert torch.equal(copy.deepcopy(built.module)(x), expected)
    exported = torch.export.export(built.module, (x,)).module()
    torch.testing.assert_close(exported(x), expected)


def test_preprocessor_of_the_recipe(recipe):
    built = build_model(mm(recipe, "resnet/resnet18_8xb16_cifar10.py"))
    image = torch.full((1, 3, 4, 4), 100, dtype=torch.uint8)
    inputs = built.preprocess({"inputs": image})["inputs"]
    torch.testing.assert_close(inputs[0, 0, 0, 0].item(), (100 - 125.307) / 51.5865, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", ["repvgg/repvgg-A0_8xb32_in1k.py", "mobileone/mobileone-s0_8xb32_in1k.py"])
def test_merged_branches_give_the_same_logits(recipe, config, monkeypatch):
    loaded = mm(recipe, config)
    original = openmmlab.build_classifier(loaded).eval()
    random = torch.Generator().manual_seed(0)
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Fresh statistics (0 and 1) would hide a merge that forgets them.
            module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=random) * 0.1)
            module.running_var.copy_(torch.rand(module.running_var.shape, generator=random) + 0.5)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = original(x, mode="tensor")
        count = len(list(original.modules()))
        monkeypatch.setattr("razordeploy.capture.build.build_classifier", lambda recipe: original)
        merged = build_model(loaded).module
        torch.testing.assert_close(merged(x), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert len(list(merged.modules())) < count / 2


def test_conformer_returns_one_tensor(recipe):
    built = build_model(mm(recipe, "conformer/conformer-tiny-p16_8xb128_in1k.py"))
    assert built.input_shapes == ((3, 224, 224),)
    with torch.no_grad():
        x = torch.rand(1, 3, 224, 224)
        logits = built.module(x)
        features = built.module.extract_feat(x)
        first, second = built.module.head(features)
    torch.testing.assert_close(logits, first + second)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"model.type": "ImageClasifier"},
            "model type 'ImageClasifier' is not registered in mmcls; did you mean 'ImageClassifier'? Or write "
            "'pkg.module:factory'",
        ),
        (
            {"model.type": "mmseg.EncoderDecoder"},
            "model type 'mmseg.EncoderDecoder': expected a class of mmcls or mmpretrain, got scope 'mmseg'; for any "
            "other model write 'pkg.module:factory'",
        ),
        (
            {"model.backbone.type": "ResNet_CIFR"},
            "model 'ImageClassifier': 'ResNet_CIFR' is not registered in mmcls; did you mean 'ResNet_CIFAR'?",
        ),
    ],
)
def test_unknown_type(recipe, change, text):
    pytest.importorskip("mmcls", reason="builds a classifier of mmcls")
    assert message(recipe("_base_ = ['mmcls::resnet/resnet18_8xb16_cifar10.py']\n", overrides=change)) == text


def test_bad_argument_of_a_registered_type(recipe):
    pytest.importorskip("mmcls", reason="builds a classifier of mmcls")
    base = "_base_ = ['mmcls::resnet/resnet18_8xb16_cifar10.py']\n"
    text = message(recipe(base, overrides={"model.backbone.depth": "19"}))
    assert text.startswith("model 'ImageClassifier' cannot be built: KeyError: ")
    assert "invalid depth 19 for resnet" in text


def test_package_that_is_absent_or_does_not_fit(recipe, monkeypatch):
    loaded = recipe("model = dict(type='mmpretrain.ImageClassifier')\n", "a")
    other = recipe("model = dict(type='mmcls.ImageClassifier')\n", "b")
    monkeypatch.setattr("razordeploy.lazy.available", lambda module: False)
    text = message(loaded, MissingDependency)
    assert text == "'mmpretrain' is not installed; pip install 'razordeploy[openmmlab]'"

    def require(module, *, extra):
        raise AssertionError("MMCV==2.2.0 is used but incompatible.")

    monkeypatch.setattr("razordeploy.lazy.require", require)
    text = message(other, MissingDependency)
    assert text == (
        "'mmcls' does not work with what is installed: MMCV==2.2.0 is used but incompatible; "
        "pip install 'razordeploy[mmcls]'"
    )


def test_shipped_cifar10_recipe_reads_rgb_images(tmp_path):
    pytest.importorskip("mmcls", reason="reads images with the datasets of mmcls")
    pillow = pytest.importorskip("PIL.Image", reason="writes an image")
    (tmp_path / "train" / "cat").mkdir(parents=True)
    pillow.new("RGB", (32, 32), (200, 100, 0)).save(tmp_path / "train" / "cat" / "0.png")
    loaded = load_recipe("ptq/mmcls_resnet18_cifar10.py", {"data_root": str(tmp_path)})
    built = build_model(loaded)
    import mmcls.datasets  # noqa: F401
    from mmengine.registry import DATASETS

    dataset = DATASETS.build(loaded.calibrate_dataloader["dataset"])
    assert len(dataset) == 1
    inputs = built.preprocess({"inputs": [dataset[0]["inputs"]]})["inputs"]
    assert inputs.shape[1:] == built.input_shapes[0]
    expected = [(200 - 125.307) / 51.5865, (100 - 122.961) / 50.847, (0 - 113.8575) / 51.255]
    torch.testing.assert_close(inputs[0, :, 0, 0], torch.tensor(expected))
