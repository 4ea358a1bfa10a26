"""The quantize section: what it replaces in a backend's grid, and where."""

import pytest

from razordeploy.config.qconfig import QConfig, QuantizeConfig, SchemeOverride, module_matches
from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError

WEIGHT = QScheme(signed=True, symmetric=True, symmetric_range=True, ch_axis=1)


def parse(**section):
    return QuantizeConfig.parse(section, "r.py")


def test_empty_section_leaves_everything_to_the_backend():
    assert parse() == QuantizeConfig()
    assert parse().for_op("any", "conv2d") == QConfig()
    assert SchemeOverride().apply(WEIGHT) == WEIGHT


def test_mmrazor_qconfig():
    qconfig = parse(
        global_qconfig={
            "w_observer": {"type": "mmrazor.PerChannelMinMaxObserver"},
            "a_observer": {"type": "mmrazor.MovingAverageMinMaxObserver"},
            "w_fake_quant": {"type": "mmrazor.FakeQuantize"},
            "a_fake_quant": "FakeQuantize",
            "w_qscheme": {"qdtype": "qint8", "bit": 8, "is_symmetry": True, "is_symmetric_range": True},
            "a_qscheme": {"qdtype": "quint8", "bit": 7, "is_symmetry": True, "averaging_constant": 0.1},
        }
    ).global_qconfig
    assert qconfig == QConfig(
        w_scheme=SchemeOverride(bits=8, signed=True, symmetric=True, symmetric_range=True, per_channel=True),
        a_scheme=SchemeOverride(bits=7, signed=False, symmetric=True),
        w_observer={"type": "PerChannelMinMaxObserver"},
        a_observer={"type": "MovingAverageMinMaxObserver", "averaging_constant": 0.1},
        w_fake_quant={"type": "FakeQuantize"},
        a_fake_quant={"type": "FakeQuantize"},
    )


@pytest.mark.parametrize(
    ("qconfig", "per_channel"),
    [
        ({"w_observer": "PerChannelMinMaxObserver"}, True),
        ({"w_observer": "MinMaxObserver"}, False),
        ({"w_observer": "PerChannelMinMaxObserver", "w_qscheme": {"per_channel": False}}, False),
        ({"w_observer": "MinMaxObserver", "w_qscheme": {"per_channel": True}}, True),
        ({"w_qscheme": {"bit": 4}}, None),
    ],
)
def test_per_channel_weights_by_the_observers_name(qconfig, per_channel):
    assert parse(global_qconfig=qconfig).global_qconfig.w_scheme.per_channel is per_channel


def test_per_channel_activations_are_never_inferred():
    assert parse(global_qconfig={"a_observer": "PerChannelMinMaxObserver"}).global_qconfig.a_scheme is None


@pytest.mark.parametrize(
    ("override", "base", "expected"),
    [
        (SchemeOverride(bits=4), WEIGHT, (-7, 7, 1)),
        (SchemeOverride(symmetric_range=False), WEIGHT, (-128, 127, 1)),
        (SchemeOverride(signed=False), WEIGHT, (0, 255, 1)),
        (SchemeOverride(per_channel=False), WEIGHT, (-127, 127, None)),
        (SchemeOverride(per_channel=True), QScheme(), (0, 255, 0)),
        (SchemeOverride(per_channel=True), WEIGHT, (-127, 127, 1)),
        (SchemeOverride(signed=True), QScheme(), (-128, 127, None)),
    ],
)
def test_apply(override, base, expected):
    scheme = override.apply(base)
    assert (scheme.qmin, scheme.qmax, scheme.ch_axis) == expected


def test_later_override_wins_part_by_part():
    config = parse(
        global_qconfig={"w_qscheme": {"bit": 8, "is_symmetry": True}, "a_observer": "MinMaxObserver"},
        overrides=[
            {"module": "backbone.*", "qconfig": {"w_qscheme": {"bit": 6}}},
            {"op": "linear", "qconfig": {"a_observer": "HistogramObserver"}},
            {"module": "backbone.layer1", "op": "conv2d", "qconfig": {"w_qscheme": {"bit": 4}}},
        ],
    )

    def found(module, op):
        qconfig = config.for_op(module, op)
        return qconfig.w_scheme.bits, qconfig.w_scheme.symmetric, qconfig.a_observer["type"]

    assert found("head.fc", "conv2d") == (8, True, "MinMaxObserver")
    assert found("head.fc", "linear") == (8, True, "HistogramObserver")
    assert found("backbone.layer2", "conv2d") == (6, True, "MinMaxObserver")
    assert found("backbone.layer1.0.conv1", "conv2d") == (4, True, "MinMaxObserver")
    assert found("backbone.layer1.0", "linear") == (6, True, "HistogramObserver")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("head", "head.fc", True),
        ("head", "header.fc", False),
        ("head.fc", "head", False),
        ("*.conv1", "backbone.layer1.0.conv1", True),
        ("backbone.layer?", "backbone.layer3.0", True),
        (r"re:backbone\.layer[12]", "backbone.layer2.conv", True),
        (r"re:backbone\.layer[12]", "backbone.layer3", False),
        (r"re:layer2", "backbone.layer2", False),
    ],
)
def test_module_patterns(pattern, path, matches):
    assert module_matches(pattern, path) is matches


def test_skip_says_which_line_of_the_recipe():
    config = parse(skip=["head"], skip_ops=["matmul"])
    assert config.skip_reason("head.fc", "linear") == "the recipe's skip names 'head'"
    assert config.skip_reason("neck", "matmul") == "the recipe's skip_ops names 'matmul'"
    assert config.skip_reason("neck", "linear") is None


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ({"skips": []}, "r.py: unknown key 'skips' in 'quantize'; did you mean 'skip'?"),
        (
            {"global_qconfig": {"w_qscheme": {"bits": 8}}},
            "r.py: unknown key 'bits' in 'quantize.global_qconfig.w_qscheme'; did you mean 'bit'?",
        ),
        (
            {"global_qconfig": {"w_qscheme": {"bit": 17}}},
            "r.py: expected an integer from 1 to 16 for 'quantize.global_qconfig.w_qscheme.bit', got int 17",
        ),
        (
            {"global_qconfig": {"w_qscheme": {"bit": True}}},
            "r.py: expected an integer from 1 to 16 for 'quantize.global_qconfig.w_qscheme.bit', got bool True",
        ),
        (
            {"global_qconfig": {"a_qscheme": {"qdtype": "int8"}}},
            "r.py: expected 'qint8' or 'quint8' for 'quantize.global_qconfig.a_qscheme.qdtype', got str 'int8'",
        ),
        (
            {"global_qconfig": {"a_qscheme": {"qdtype": "quint8", "is_symmetric_range": True}}},
            "r.py: 'quantize.global_qconfig.a_qscheme': is_symmetric_range drops the lowest signed value: it needs "
            "qdtype='qint8'",
        ),
        (
            {"global_qconfig": {"a_qscheme": {"averaging_constant": 0.1}}},
            "r.py: 'quantize.global_qconfig.a_qscheme.averaging_constant' is an argument of the observer; name one: "
            "a_observer=dict(type='MovingAverageMinMaxObserver')",
        ),
        (
            {"global_qconfig": {"w_observer": {"kind": "X"}}},
            "r.py: expected dict(type='NAME', ...) for 'quantize.global_qconfig.w_observer', got dict {'kind': 'X'}",
        ),
        (
            {"overrides": [{"qconfig": {}}]},
            "r.py: 'quantize.overrides[0]' names no module and no op; give module='...' or op='...' or both",
        ),
        (
            {"overrides": [{"op": "conv2d"}]},
            "r.py: 'quantize.overrides[0]' has no qconfig; to leave modules in float, use quantize.skip",
        ),
        (
            {"overrides": {"op": "conv2d"}},
            "r.py: expected a list of dict(module=..., op=..., qconfig=...) for 'quantize.overrides', got dict "
            "{'op': 'conv2d'}",
        ),
        (
            {"overrides": [{"module": "re:(", "qconfig": {}}]},
            "r.py: '(' in 'quantize.overrides[0].module' is not a regular expression: missing ), unterminated "
            "subpattern at position 0",
        ),
        ({"skip": [3]}, "r.py: expected a list of strings for 'quantize.skip', got list [3]"),
    ],
)
def test_bad_section(section, text):
    with pytest.raises(RecipeError) as caught:
        parse(**section)
    assert str(caught.value) == text
