"""Of every algorithm, after training: sliced, masked, exported and at full width the same, in torch and in ONNX."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from razordeploy.compress.pruning.algorithms.table import ALGORITHMS
from razordeploy.compress.pruning.result import full_width, sliced
from razordeploy.subnet.files import read_mapping, write_mapping
from razordeploy.subnet.fix import load_fix_subnet
from razordeploy.subnet.mutators.forward import set_masked
from razordeploy.train.classifier import ShiftAndFlip
from tests.compress.distill.tiny import images, tiny
from tests.compress.pruning.conftest import at, batch
from tests.compress.pruning.processes import CASES, prepared

PRUNERS = {
    "ItePruneAlgorithm": ("ChannelMutator", "L1MutableChannelUnit"),
    "RatioPruner": ("ChannelMutator", "L1MutableChannelUnit"),
    "DCFF": ("DCFFChannelMutator", "DCFFChannelUnit"),
}


@pytest.fixture
def trained(channels, mutator_cfg):
    def make(name):
        if name in CASES:
            algorithm = prepared(name, channels)
        else:
            options = {"ratio": 0.5} if name == "RatioPruner" else {"target_pruning_ratio": 0.5}
            config = mutator_cfg(*PRUNERS[name])
            algorithm = ALGORITHMS[name](tiny(), mutator=config, data_preprocessor=ShiftAndFlip(), **options).train()
        if name == "GroupFisherAlgorithm":
            algorithm.interval = 1
        wrapper = OptimWrapper(torch.optim.SGD(algorithm.parameters(), 0.05, momentum=0.9, weight_decay=1e-3))
        if name == "DMCP":
            parts = {"architecture": algorithm.architecture, "mutator": algorithm.mutator}
            rates = {"architecture": 0.05, "mutator": 0.3}
            wrapper = OptimWrapperDict(
                **{key: OptimWrapper(torch.optim.SGD(part.parameters(), rates[key])) for key, part in parts.items()}
            )
        for iteration in range(5):
            at(algorithm, iteration, epoch=iteration, epochs=5)
            algorithm.train_step(batch(), wrapper)
        if name == "DMCP":
            with torch.no_grad():
                for parameter in algorithm.mutator.arch_params.values():
                    parameter.fill_(0.3)
        algorithm.eval().settle()
        if name == "AutoSlim":
            algorithm.set_subnet({"conv1_(0, 4)_4": 0.5, "conv2_(0, 8)_8": 0.25})
        if name == "SlimmableNetwork":
            algorithm.mutator.switch(1)
        return algorithm

    return make


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ALGORITHMS)
def test_slice_is_mask_is_export(trained, name, tmp_path):
    algorithm = trained(name)
    assert any(not bool(unit.mask.all()) for unit in algorithm.mutator.mutable_units)
    x = images(5)
    expected = algorithm(x)
    set_masked(algorithm.architecture, True)
    torch.testing.assert_close(algorithm(x), expected, atol=1e-5, rtol=0)
    set_masked(algorithm.architecture, False)

    subnet, static = sliced(algorithm)
    torch.testing.assert_close(static(x), expected, atol=1e-5, rtol=0)
    write_mapping(tmp_path / "fix_subnet.yaml", subnet)
    whole = full_width(algorithm)
    plain = tiny(9).eval()
    plain.load_state_dict(whole.state_dict(), strict=True)
    torch.testing.assert_close(plain(x), expected, atol=1e-5, rtol=0)
    content = read_mapping(tmp_path / "fix_subnet.yaml")
    if name == "SlimmableNetwork":
        # Its units only take the widths that it was trained at: the file is of a slimmable model.
        units = content["channel_unit_cfg"]["units"].values()
        assert {unit["choice"] for unit in units if "reason" not in unit} == {0.5}
    again = load_fix_subnet(plain, content)
    torch.testing.assert_close(again(x), expected, atol=1e-5, rtol=0)
    assert [p.shape for p in again.parameters()] == [p.shape for p in static.parameters()]

    if name != "DCFF":  # The others' are modules of the same classes.
        return
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    with torch.no_grad():
        torch.onnx.export(static, (x,), tmp_path / "subnet.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "subnet.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(found, expected.detach().numpy(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_copies_and_saved_states_are_the_algorithm(trained, name):
    algorithm = trained(name)
    x = images(3)
    expected = algorithm(x)
    torch.testing.assert_close(copy.deepcopy(algorithm)(x), expected)
    other = trained(name)
    with torch.no_grad():
        for parameter in other.architecture.parameters():
            parameter.add_(1.0)
    other.load_state_dict(algorithm.state_dict(), strict=True)
    if name != "DCFF":  # A fusion is made of the weights, at the next epoch.
        torch.testing.assert_close(other(x), expected)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_without_a_mutator_the_algorithm_has_its_own(name):
    # mmrazor's DMCP names a mutator that does not exist, and its one-shot mutator arguments that units do not take.
    parse = {"parse_cfg": {"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)}}
    if name == "GroupFisherAlgorithm":
        parse["channel_unit_cfg"] = {"default_args": {"mutate_linear": True}}
    algorithm = ALGORITHMS[name](tiny(), mutator=parse)
    assert isinstance(algorithm.mutator, algorithm.mutator_type)
    assert {unit.name for unit in algorithm.mutator.mutable_units} == {"conv1_(0, 4)_4", "conv2_(0, 8)_8"}
