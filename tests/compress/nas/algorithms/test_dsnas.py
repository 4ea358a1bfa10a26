from __future__ import annotations

import itertools

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch.nn import functional

from razordeploy.compress.nas.algorithms import dsnas
from razordeploy.compress.nas.algorithms.dsnas import DSNAS
from razordeploy.compress.nas.supernets.digits import dsnas_digits
from razordeploy.compress.nas.train import build_supernet, train_supernet
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import RecipeError
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.fix import load_fix_subnet
from tests.compress.nas.nets import batch, one_hot_chain

NAMES = ("first", "second")


def _dsnas(**options):
    torch.manual_seed(2)
    algorithm = DSNAS(architecture=one_hot_chain().double(), **options)
    for name, values in zip(NAMES, ([0.3, -0.5, 0.8], [-0.2, 0.6, 0.1]), strict=True):
        algorithm.mutator.arch_params[name].data = torch.tensor(values, dtype=torch.float64)
    weights = OptimWrapper(torch.optim.SGD(algorithm.architecture.parameters(), lr=0.1))
    arch = OptimWrapper(torch.optim.SGD(algorithm.mutator.parameters(), lr=0.1))
    return algorithm, OptimWrapperDict(architecture=weights, mutator=arch)


def _data():
    return batch(dtype=torch.float64)


def _enumerated(algorithm):
    """The expectation of the score-function gradient over all nine paths, the network written out by hand."""
    net, (x, y) = algorithm.architecture, _data()
    probs = {name: functional.softmax(algorithm.mutator.arch_params[name].detach(), -1) for name in NAMES}
    expected = {name: torch.zeros(3, dtype=torch.float64) for name in NAMES}
    for path in itertools.product(range(3), repeat=2):
        ones = [torch.ones((), dtype=torch.float64, requires_grad=True) for _ in NAMES]
        h = net.stem(x.flatten(1))
        for index, name, weight in zip(path, NAMES, ones, strict=True):
            h = weight * list(getattr(net, name)._candidates.values())[index](h)
        rewards = torch.autograd.grad(functional.cross_entropy(net.head(h), y), ones)
        likelihood = probs["first"][path[0]] * probs["second"][path[1]]
        for index, name, reward in zip(path, NAMES, rewards, strict=True):
            score = functional.one_hot(torch.tensor(index), 3) - probs[name]
            expected[name] += likelihood * reward * score
    return expected


def _sample(algorithm):
    algorithm.zero_grad()
    algorithm(*_data(), mode="loss")["loss"].backward()
    algorithm.mutator_loss()["loss_arch"].backward()
    return {name: algorithm.mutator.arch_params[name].grad.clone() for name in NAMES}


def test_the_gradient_is_unbiased():
    algorithm, _ = _dsnas()
    expected = _enumerated(algorithm)
    torch.manual_seed(0)
    drawn = [_sample(algorithm) for _ in range(1500)]
    for name in NAMES:
        values = torch.stack([gradients[name] for gradients in drawn])
        error = values.std(0) / len(drawn) ** 0.5
        distance = (values.mean(0) - expected[name]).abs()
        assert bool((distance < 4 * error + 1e-9).all()), (name, distance / error)
        assert float(expected[name].abs().max()) > 4 * float(error.max()), "too small to tell from zero"


def test_one_operation_runs_on_each_edge():
    algorithm, _ = _dsnas()
    algorithm(*_data(), mode="loss")["loss"].backward()
    for name in NAMES:
        member = getattr(algorithm.architecture, name)
        drawn = member.choices[int(member.arch_weights.argmax())]
        for candidate, operation in member._candidates.items():
            for parameter in operation.parameters():
                assert (parameter.grad is None) == (candidate != drawn)
        assert algorithm.mutator.arch_params[name].grad is None


def test_epochs_decide_what_learns(monkeypatch):
    algorithm, wrappers = _dsnas(pretrain_epochs=1, finetune_epochs=2)
    epoch = {}
    monkeypatch.setattr(dsnas.MessageHub, "get_current_instance", lambda: type("Hub", (), {"get_info": epoch.get}))
    found = {}
    for epoch["epoch"] in range(3):
        before = [p.detach().clone() for p in algorithm.mutator.parameters()]
        weights = algorithm.architecture.head.weight.detach().clone()
        log = algorithm.train_step(_data(), wrappers)
        found[epoch["epoch"]] = any(
            not torch.equal(a, b) for a, b in zip(before, algorithm.mutator.parameters(), strict=True)
        )
        assert ("loss_arch" in log) == found[epoch["epoch"]]
        assert not torch.equal(weights, algorithm.architecture.head.weight)
    assert found == {0: False, 1: True, 2: False}
    drawn = [getattr(algorithm.architecture, name) for name in NAMES]
    assert [m.choices[int(m.arch_weights.argmax())] for m in drawn] == list(algorithm.decide().values())


def test_evaluation_takes_the_most_probable_path():
    algorithm, _ = _dsnas()
    algorithm.eval()
    x = _data()[0]
    assert torch.equal(algorithm(x), algorithm(x))
    net = algorithm.architecture
    h = net.first._candidates["skip"](net.stem(x.flatten(1)))
    torch.testing.assert_close(algorithm(x), net.head(net.second._candidates["linear"](h)))


def test_the_expected_cost_is_pulled_under_the_limit():
    options = {"estimator_cfg": {"input_shape": (1, 1, 8, 8)}, "flops_weight": 5.0}
    torch.manual_seed(0)
    algorithm = DSNAS(architecture=dsnas_digits(width=4), flops_constraints=0.01, **options)
    key = "backbone.layers.0.1"
    costs = dict(zip(algorithm.edges[key].choices, algorithm.costs[key].tolist(), strict=True))
    # 1x1 to 8 channels, 3x3 depthwise, 1x1 back, at 64 places.
    assert costs["mb_k3e2"] == pytest.approx(64 * (4 * 8 + 8 * 9 + 8 * 4) / 1e6)
    assert costs["identity"] == 0.0
    before = float(algorithm.expected_flops().detach())
    optimizer = torch.optim.SGD(algorithm.mutator.parameters(), lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        algorithm(torch.randn(2, 1, 8, 8), torch.tensor([0, 1]), mode="loss")["loss"].backward()
        algorithm.mutator_loss()["loss_flops"].backward()
        optimizer.step()
    assert float(algorithm.expected_flops().detach()) < 0.5 * before
    with pytest.raises(RecipeError, match="needs the shape to count at"):
        DSNAS(architecture=dsnas_digits(), flops_constraints=1.0)
    with pytest.raises(RecipeError, match="expected 0 <= pretrain_epochs <= finetune_epochs, got 3 and 2"):
        DSNAS(architecture=dsnas_digits(), pretrain_epochs=3, finetune_epochs=2)


def test_the_shipped_recipe_trains_and_decides(tmp_path):
    options = {"train.epochs": "1", "train.batch_size": "256", "model.architecture.width": "4"}
    recipe = load_recipe("nas/digits/dsnas_supernet.py", options)
    path = train_supernet(recipe, work_dir=tmp_path)
    subnet = read_mapping(path.with_name("fix_subnet.yaml"))
    build_supernet(recipe).architecture.load_state_dict(torch.load(path), strict=True)
    assert load_fix_subnet(dsnas_digits(width=4), subnet)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
