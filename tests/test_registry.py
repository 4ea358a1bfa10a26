"""Configs name components by our scope and by mmrazor's."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope

from razordeploy import registry
from razordeploy.errors import RecipeError
from razordeploy.integrations.mmrazor import COMPONENTS
from razordeploy.registry import MODELS, build_model
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.mutables.channel import SequentialMutableChannel
from razordeploy.subnet.mutators.channel import ChannelMutator


@pytest.mark.parametrize("name", sorted(name for table in COMPONENTS["MODELS"] for name in table))
def test_every_component_goes_by_both_scopes(name):
    found = {ROOT.get(f"{scope}.{name}") for scope in ("razordeploy", "mmrazor")} | {MODELS.get(name)}
    assert len(found) == 1
    assert None not in found


def test_the_predecessors_names_are_there():
    # Sections 2.2 and 2.4 of what mmrazor 1.0 registers, as far as subnets go.
    names = [
        "DynamicConv2d",
        "BigNasConv2d",
        "OFAConv2d",
        "FuseConv2d",
        "DynamicPatchEmbed",
        "DynamicInputResizer",
        "DynamicBatchNorm1d",
        "DynamicBatchNorm2d",
        "DynamicBatchNorm3d",
        "DynamicLayerNorm",
        "DMCPBatchNorm2d",
        "OneShotMutableOP",
        "OneShotProbMutableOP",
        "DiffMutableOP",
        "OneHotMutableOP",
        "DiffChoiceRoute",
        "GumbelChoiceRoute",
        "MutableValue",
        "OneShotMutableValue",
        "MutableChannelContainer",
        "SimpleMutableChannel",
        "SquentialMutableChannel",
        "SequentialMutableChannelUnit",
        "L1MutableChannelUnit",
        "OneShotMutableChannelUnit",
        "SlimmableChannelUnit",
        "DCFFChannelUnit",
        "DMCPChannelUnit",
        "GroupFisherChannelUnit",
        "NasMutator",
        "ChannelMutator",
        "OneShotChannelMutator",
        "SlimmableChannelMutator",
        "DCFFChannelMutator",
        "DMCPChannelMutator",
        "GroupFisherChannelMutator",
        "sub_model",
    ]
    assert [name for name in names if ROOT.get(f"mmrazor.{name}") is None] == []


def test_components_are_built_from_configs():
    linear = ROOT.build({"type": "mmrazor.DynamicLinear", "in_features": 3, "out_features": 2})
    assert type(linear) is DynamicLinear
    channel = ROOT.build({"type": "SquentialMutableChannel", "num_channels": 4, "_scope_": "mmrazor"})
    assert type(channel) is SequentialMutableChannel
    mutator = build_model({"type": "razordeploy.ChannelMutator", "parse_cfg": {"type": "Config"}})
    assert type(mutator) is ChannelMutator


@pytest.mark.parametrize("scope", ["razordeploy", "mmrazor"])
def test_a_default_scope_finds_them_without_complaint(scope, caplog):
    with caplog.at_level(logging.WARNING), DefaultScope.overwrite_default_scope(scope):
        assert type(ROOT.build({"type": "DynamicLinear", "in_features": 3, "out_features": 2})) is DynamicLinear
    assert "not installed" not in caplog.text
    assert "Failed" not in caplog.text


def test_what_a_user_registers_is_in_both_scopes():
    @registry.MODELS.register_module(name="ForThisTest")
    class ForThisTest:
        pass

    try:
        assert ROOT.get("mmrazor.ForThisTest") is ForThisTest
    finally:
        registry.MODELS.module_dict.pop("ForThisTest")


def test_unknown_names_are_refused():
    with pytest.raises(RecipeError, match="unknown candidate 'mmrazor.DynamicConv2D'; did you mean 'DynamicConv2d'"):
        build_model({"type": "mmrazor.DynamicConv2D"}, "candidate")
    for config in ({}, {"in_features": 3}, "DynamicLinear"):
        with pytest.raises(RecipeError, match="a dict with a 'type'"):
            build_model(config)


def test_importing_the_registry_registers_nothing():
    code = (
        "import sys, razordeploy.registry as r;"
        "assert not r.MODELS._module_dict and 'razordeploy.subnet.fix' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
