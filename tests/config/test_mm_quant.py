"""mmrazor's quantization recipes, read as our sections."""

from __future__ import annotations

from typing import Any

import pytest

from razordeploy.config.mm_quant import QUANTIZERS
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.errors import RecipeError

QCONFIG = {
    "w_observer": {"type": "mmrazor.PerChannelMinMaxObserver"},
    "a_observer": {"type": "mmrazor.MovingAverageMinMaxObserver"},
    "w_fake_quant": {"type": "mmrazor.FakeQuantize"},
    "a_fake_quant": {"type": "mmrazor.FakeQuantize"},
    "w_qscheme": {"qdtype": "qint8", "bit": 8, "is_symmetry": True, "is_symmetric_range": True},
    "a_qscheme": {"qdtype": "quint8", "bit": 8, "is_symmetry": True, "averaging_constant": 0.1},
}


@pytest.fixture
def recipe(tmp_path):
    def load(quantizer: dict[str, Any], rest: str = "", **model: Any) -> Recipe:
        wrapped = {
            "type": "mmrazor.MMArchitectureQuant",
            "architecture": {"type": "ImageClassifier", "backbone": {"type": "ResNet", "depth": 18}},
            "float_checkpoint": "r18.pth",
            "input_shapes": (1, 3, 224, 224),
            "quantizer": quantizer,
            **model,
        }
        file = tmp_path / "r.py"
        file.write_text(f"model = {wrapped!r}\n{rest}\n")
        return load_recipe(file)

    return load


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_quantizer_is_a_backend_with_a_qconfig(recipe, name):
    tracer = {"type": "mmrazor.CustomTracer", "skipped_methods": ["mmcls.models.heads.ClsHead._get_loss"]}
    found = recipe({"type": f"mmrazor.{name}", "global_qconfig": QCONFIG, "tracer": tracer})
    assert found.deploy.backends == (() if QUANTIZERS[name] is None else (QUANTIZERS[name],))
    assert found.deploy.input_shapes == ((3, 224, 224),)
    assert (found.checkpoint, found.model_name) == ("r18.pth", "ImageClassifier")
    q = found.quantize.global_qconfig
    assert (q.w_fake_quant, q.w_scheme.per_channel, q.w_scheme.bits) == ({"type": "FakeQuantize"}, True, 8)
    assert q.a_observer == {"type": "MovingAverageMinMaxObserver", "averaging_constant": 0.1}


def test_the_recipes_own_sections_go_before_the_quantizers(recipe):
    rest = "checkpoint = 'mine.pth'\ndeploy = dict(backends=['onnxruntime'], input_shape=(3, 32, 32))\n"
    rest += "quantize = dict(global_qconfig=dict(w_qscheme=dict(bit=4)))"
    found = recipe({"type": "mmrazor.OpenVINOQuantizer", "global_qconfig": QCONFIG}, rest)
    assert (found.checkpoint, found.deploy.backends) == ("mine.pth", ("onnxruntime",))
    assert found.deploy.input_shapes == ((3, 32, 32),)
    assert found.quantize.global_qconfig.w_scheme.bits == 4


def test_custom_qconfigs_become_overrides(recipe):
    eight = {"w_qscheme": {"bit": 8}}
    found = recipe(
        {
            "type": "TorchDefaultQuantizer",
            "qconfig": {"w_qscheme": {"bit": 4}},
            "custom_qconfig": {"backbone.layer4": {"w_qscheme": {"bit": 6}}, "head": None},
            "input_layer": eight,
            "output_layer": None,
            "fuse_config": {"modules": [["conv1", "bn1"]]},
        }
    ).quantize
    assert found.global_qconfig.w_scheme.bits == 4
    assert found.for_op("backbone.layer4.0.conv1", "conv2d").w_scheme.bits == 6
    assert found.skip == ("head",)
    assert found.input_layer.w_scheme.bits == 8
    assert (found.output_layer, found.float_ends) == (None, ("output",))


def test_an_academic_mapping_becomes_overrides(recipe):
    mapping = {
        "_global_": {"w_qscheme": {"bit": 4}},
        "object_type": [("torch.nn.Linear", {"w_qscheme": {"bit": 5}}), ("torch.nn.Conv2d", None)],
        "module_name": [("backbone.conv1", {"w_qscheme": {"bit": 8}})],
    }
    found = recipe({"type": "mmrazor.AcademicQuantizer", "qconfig_mapping": mapping}).quantize
    assert found.for_op("head.fc", "linear").w_scheme.bits == 5
    assert found.for_op("backbone.conv1", "conv2d").w_scheme.bits == 8
    assert found.skip_ops == ("conv2d", "depthwise_conv2d")


@pytest.mark.parametrize(
    ("quantizer", "text"),
    [
        ({"type": "mmrazor.OpenVinoQuantizer"}, "unknown quantizer 'mmrazor.OpenVinoQuantizer'; did you mean 'OpenV"),
        ({"type": "OpenVINOQuantizer", "global_qconfg": {}}, "unknown key 'global_qconfg' in 'model.quantizer'"),
        ({"type": "OpenVINOQuantizer", "no_observer_modules": ["a.B"]}, "quantize=dict(skip="),
        ({"type": "AcademicQuantizer", "qconfig_mapping": {"name": []}}, "a dict of '_global_', 'object_type'"),
        ({"type": "AcademicQuantizer", "custom_qconfig": ["x"]}, "expected {name: qconfig}"),
        ({}, "unknown quantizer"),
    ],
)
def test_what_cannot_be_carried_over_is_said(recipe, quantizer, text):
    with pytest.raises(RecipeError) as caught:
        recipe(quantizer)
    assert text in str(caught.value)


def test_an_architecture_is_needed(recipe):
    with pytest.raises(RecipeError, match="expected a dict for 'model.architecture', got None"):
        recipe({"type": "OpenVINOQuantizer"}, architecture=None)
