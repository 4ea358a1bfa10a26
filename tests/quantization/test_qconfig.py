"""What the backend's YAML and the recipe say together, operation by operation."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.capture.export import capture
from razordeploy.config.backend_spec import BackendSpec, OpRule, TensorRule
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import RecipeError
from razordeploy.quantization.plan import ObserverSpec
from razordeploy.quantization.qconfig import check_patterns, origin_path, settings_for

SPEC = BackendSpec(
    name="test",
    summary="",
    extra="test",
    weight=TensorRule(signed=True, symmetric=True, per_channel=True),
    ops={"conv2d": OpRule(inputs=(0,), weight=1)},
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(x))


@pytest.fixture(scope="module")
def captured():
    return capture(Net(), (torch.zeros(2, 3, 8, 8),))


def node(captured, path):
    return next(n for n in captured.graph.nodes if n.op == "call_function" and origin_path(n) == path)


def settings(captured, path="stem", rule=None, spec=SPEC, **quantize):
    config = QuantizeConfig.parse(quantize, "recipe.py")
    return settings_for(spec, config)(node(captured, path), "conv2d", rule or spec.ops["conv2d"])


def test_an_empty_section_is_the_backends_choice(captured):
    found = settings(captured)
    assert found.activation == SPEC.activation.scheme()
    assert found.weight == SPEC.weight.scheme(0)
    assert found.activation_observer == found.weight_observer == ObserverSpec(type="MinMaxObserver")
    assert found.skip is None


def test_recipe_replaces_parts(captured):
    found = settings(
        captured,
        global_qconfig={
            "a_observer": {"type": "mmrazor.PercentileObserver", "percentile": 99.9},
            "w_qscheme": {"is_symmetric_range": True},
        },
    )
    assert found.activation_observer.options == (("percentile", 99.9),)
    assert found.activation_observer.type == "PercentileObserver"
    assert (found.weight.symmetric_range, found.weight.ch_axis, found.weight.bits) == (True, 0, 8)


def test_overrides_by_module_and_kind(captured):
    override = {"module": "head.*", "qconfig": {"a_observer": {"type": "HistogramObserver"}}}
    assert settings(captured, "head.0", overrides=[override]).activation_observer.type == "HistogramObserver"
    assert settings(captured, "stem", overrides=[override]).activation_observer.type == "MinMaxObserver"


def test_skips_say_who_asked(captured):
    assert settings(captured, skip=["stem"]).skip == "the recipe's skip names 'stem'"
    assert settings(captured, skip=["head.*"]).skip is None
    assert settings(captured, skip_ops=["conv2d"]).skip == "the recipe's skip_ops names 'conv2d'"


def test_off_by_default_until_the_recipe_names_the_kind(captured):
    rule = OpRule(inputs=(0,), enabled=False, reason="loses accuracy")
    assert settings(captured, rule=rule).skip == "loses accuracy"
    override = {"op": "conv2d", "qconfig": {"a_observer": {"type": "MinMaxObserver"}}}
    assert settings(captured, rule=rule, overrides=[override]).skip is None


@pytest.mark.parametrize(
    ("quantize", "text"),
    [
        ({"skip_ops": ["conv2"]}, "unknown operation kind 'conv2'; did you mean 'conv2d'?"),
        ({"overrides": [{"op": "lineer", "qconfig": {}}]}, "unknown operation kind 'lineer'; did you mean 'linear'?"),
        ({"global_qconfig": {"a_observer": {"type": "MinMax"}}}, "unknown observer 'MinMax'"),
        ({"global_qconfig": {"w_observer": {"type": "MSEObserver", "lp": 3}}}, "MSEObserver"),
        ({"global_qconfig": {"a_fake_quant": {"type": "FakeQuantise"}}}, "did you mean 'FakeQuantize'?"),
        (
            {"overrides": [{"module": "stem", "qconfig": {"a_observer": {"type": "MinMaxObservr"}}}]},
            "unknown observer 'MinMaxObservr'; did you mean 'MinMaxObserver'?",
        ),
    ],
)
def test_unknown_names(quantize, text):
    with pytest.raises(RecipeError) as caught:
        settings_for(SPEC, QuantizeConfig.parse(quantize, "recipe.py"))
    assert text in str(caught.value)


@pytest.mark.parametrize("name", ["FakeQuantize", "mmrazor.FakeQuantize", "LearnableFakeQuantize"])
def test_fake_quants_of_the_table_are_taken(name):
    config = {"global_qconfig": {"w_fake_quant": {"type": name}, "a_fake_quant": {"type": name}}}
    settings_for(SPEC, QuantizeConfig.parse(config, "recipe.py"))


@pytest.mark.parametrize(
    ("scheme", "text"),
    [
        (
            {"a_qscheme": {"bit": 4}},
            "backend 'test' runs 8 bits, the recipe asks for 4-bit activations; --backend academic",
        ),
        ({"w_qscheme": {"bit": 4}}, "backend 'test' runs 8 bits, the recipe asks for 4-bit weights"),
        (
            {"w_qscheme": {"is_symmetry": False}},
            "has no kernel for asymmetric weights: they would silently run in float",
        ),
    ],
)
def test_grids_without_a_kernel(captured, scheme, text):
    with pytest.raises(RecipeError) as caught:
        settings(captured, global_qconfig=scheme)
    assert text in str(caught.value)
    assert str(caught.value).startswith("'stem': ")


class TestPatterns:
    @pytest.mark.parametrize("pattern", ["stem", "head.*", "head.0", "re:st.m"])
    def test_matching(self, captured, pattern):
        check_patterns(QuantizeConfig.parse({"skip": [pattern]}, "r"), captured)
        check_patterns(QuantizeConfig.parse({"overrides": [{"module": pattern, "qconfig": {}}]}, "r"), captured)

    def test_typo(self, captured):
        for section in ({"skip": ["stemm"]}, {"overrides": [{"module": "stemm", "qconfig": {}}]}):
            with pytest.raises(RecipeError, match="'stemm' matches no module of the model; did you mean 'stem'?"):
                check_patterns(QuantizeConfig.parse(section, "r"), captured)
