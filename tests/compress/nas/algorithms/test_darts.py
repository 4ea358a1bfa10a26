from __future__ import annotations

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from razordeploy.compress.nas.algorithms.darts import Darts, TwoBatches
from razordeploy.compress.nas.supernets.darts_blocks import DartsZero
from razordeploy.compress.nas.supernets.digits import darts_digits
from razordeploy.compress.nas.train import build_supernet, train_supernet
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import RecipeError
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.fix import load_fix_subnet
from tests.compress.nas.nets import batch, diff_chain, one_shot_chain

SGD = {
    "plain": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "dampened": {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
}


def _darts(unroll=True, **sgd):
    torch.manual_seed(1)
    algorithm = Darts(architecture=diff_chain().double(), unroll=unroll)
    for parameter in algorithm.arch_parameters:
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64)
    weights = torch.optim.SGD(algorithm.weights, **(sgd or {"lr": 0.1}))
    arch = torch.optim.Adam(algorithm.arch_parameters, lr=0.01)
    return algorithm, OptimWrapperDict(architecture=OptimWrapper(weights), mutator=OptimWrapper(arch))


def _two(train=0, val=1):
    return TwoBatches(batch(seed=train, dtype=torch.float64), batch(seed=val, dtype=torch.float64))


def _loss(algorithm, data):
    return functional.cross_entropy(algorithm.architecture(data[0]), data[1])


def _autograd_through_the_step(algorithm, optimizer, data):
    """The gradient of the validation loss after a step of torch's SGD, by autograd alone."""
    names = {id(p): n for n, p in algorithm.architecture.named_parameters()}
    loss = _loss(algorithm, data.weights)
    moved = {}
    for group in optimizer.param_groups:
        gradients = torch.autograd.grad(loss, group["params"], create_graph=True, allow_unused=True)
        for weight, gradient in zip(group["params"], gradients, strict=True):
            gradient = torch.zeros_like(weight) if gradient is None else gradient
            change = gradient + group["weight_decay"] * weight
            held = optimizer.state.get(weight, {}).get("momentum_buffer")
            if group["momentum"]:
                buffer = change if held is None else group["momentum"] * held + (1 - group["dampening"]) * change
                change = change + group["momentum"] * buffer if group["nesterov"] else buffer
            moved[names[id(weight)]] = weight - group["lr"] * change
    logits = functional_call(algorithm.architecture, moved, (data.architecture[0],))
    loss = functional.cross_entropy(logits, data.architecture[1])
    return torch.autograd.grad(loss, algorithm.arch_parameters)


def _relative(ours, theirs):
    difference = torch.cat([(a - b).flatten() for a, b in zip(ours, theirs, strict=True)])
    return float(difference.norm() / torch.cat([b.flatten() for b in theirs]).norm())


@pytest.mark.parametrize("name", SGD)
def test_second_order_gradient_is_autograd_through_the_step(name):
    algorithm, wrappers = _darts(**SGD[name])
    optimizer = wrappers["architecture"].optimizer
    for step in range(2):
        # The second time the optimizer has momentum from the first.
        data = _two(train=2 * step, val=2 * step + 1)
        expected = _autograd_through_the_step(algorithm, optimizer, data)
        first_order = torch.autograd.grad(_loss(algorithm, data.architecture), algorithm.arch_parameters)
        before = [w.detach().clone() for w in algorithm.weights]
        train, val = (algorithm.data_preprocessor(part, True) for part in data)
        algorithm._unrolled_backward(train, val, wrappers["architecture"])
        found = [p.grad for p in algorithm.arch_parameters]
        assert _relative(found, expected) < 1e-4
        assert _relative(first_order, expected) > 1e-2, "the first order would have done"
        assert all(torch.equal(w, b) for w, b in zip(algorithm.weights, before, strict=True))
        algorithm.zero_grad()
        algorithm.train_step(data, wrappers)


@pytest.mark.parametrize("name", SGD)
def test_the_virtual_step_is_the_optimizers_step(name):
    algorithm, wrappers = _darts(**SGD[name])
    for _ in range(2):
        algorithm.train_step(_two(), wrappers)
    optimizer = wrappers["architecture"].optimizer
    data = _two(train=7)
    gradient = torch.autograd.grad(_loss(algorithm, data.weights), algorithm.weights, allow_unused=True)
    gradient = [torch.zeros_like(w) if g is None else g for w, g in zip(algorithm.weights, gradient, strict=True)]
    before = [w.detach().clone() for w in algorithm.weights]
    algorithm._move_by_virtual_step(algorithm.weights, gradient, wrappers["architecture"])
    virtual = [w.detach().clone() for w in algorithm.weights]
    for weight, start, grad in zip(algorithm.weights, before, gradient, strict=True):
        weight.data.copy_(start)
        weight.grad = grad
    optimizer.step()
    for ours, weight in zip(virtual, algorithm.weights, strict=True):
        torch.testing.assert_close(ours, weight.detach(), atol=1e-14, rtol=1e-12)


@pytest.mark.parametrize("unroll", [False, True])
def test_each_optimizer_sees_its_own_gradients(unroll):
    moved = []
    for val in (1, 2):
        algorithm, wrappers = _darts(unroll, **SGD["momentum"])
        wrappers["mutator"].optimizer.param_groups[0]["lr"] = 0.0
        before = [p.detach().clone() for p in algorithm.arch_parameters]
        log = algorithm.train_step(_two(val=val), wrappers)
        assert {"loss", "arch_loss"} <= set(log)
        assert all(p.grad is None or not p.grad.any() for p in algorithm.parameters())
        assert all(torch.equal(p, b) for p, b in zip(algorithm.arch_parameters, before, strict=True))
        moved.append([w.detach().clone() for w in algorithm.weights])
    assert all(torch.equal(a, b) for a, b in zip(*moved, strict=True)), "the weights saw the architecture's batch"


def test_first_order_is_the_gradient_of_the_validation_loss():
    algorithm, wrappers = _darts(False)
    data = _two()
    expected = torch.autograd.grad(_loss(algorithm, data.architecture), algorithm.arch_parameters)
    val = algorithm.data_preprocessor(data.architecture, True)
    algorithm._backward(val, algorithm.arch_parameters, wrappers["mutator"])
    assert _relative([p.grad for p in algorithm.arch_parameters], expected) < 1e-12
    assert all(w.grad is None for w in algorithm.weights)


def test_unrolling_leaves_no_trace_in_batch_norms_and_random_numbers():
    torch.manual_seed(0)
    algorithm = Darts(architecture=nn.Sequential(diff_chain().double(), nn.BatchNorm1d(3).double()), unroll=True)
    algorithm.architecture[0].second._candidates["skip"] = nn.Dropout(0.5)
    wrapper = OptimWrapper(torch.optim.SGD(algorithm.weights, lr=0.1))
    train, val = (algorithm.data_preprocessor(part, True) for part in _two())
    buffers = copy.deepcopy(dict(algorithm.architecture.named_buffers()))
    state = torch.random.get_rng_state()
    algorithm._unrolled_backward(train, val, wrapper)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(buffers[name], value) for name, value in algorithm.architecture.named_buffers())


def test_what_cannot_be_unrolled_or_trained_is_refused():
    algorithm, wrappers = _darts()
    adam = OptimWrapper(torch.optim.Adam(algorithm.weights))
    with pytest.raises(RecipeError, match="follows the step of SGD, got Adam"):
        algorithm.train_step(_two(), OptimWrapperDict(architecture=adam, mutator=wrappers["mutator"]))
    with pytest.raises(RecipeError, match="one batch for the weights and one for the architecture"):
        algorithm.train_step(batch(), wrappers)
    with pytest.raises(RecipeError, match="an optimizer for the weights and one"):
        algorithm.train_step(_two(), wrappers["architecture"])
    from razordeploy.errors import ModelError

    with pytest.raises(ModelError, match="no differentiable mutables"):
        Darts(architecture=one_shot_chain())


def test_zero_is_never_chosen():
    torch.manual_seed(0)
    algorithm = Darts(architecture=darts_digits())
    for key, parameter in algorithm.mutator.arch_params.items():
        if "_p" in key:
            parameter.data = torch.tensor([9.0, 0.0, 1.0, 3.0, 2.0])
    assert isinstance(
        algorithm.architecture.backbone.cells[0].nodes[0].edges._edges["normal_n2_p0"]._candidates["zero"], DartsZero
    )
    chosen = {name: choice for name, choice in algorithm.decide().items() if "_p" in name}
    assert set(chosen.values()) == {"sep_conv_3x3"}


def test_the_shipped_recipe_trains_and_decides(tmp_path):
    options = {"train_cfg.max_epochs": "1", "train_dataloader.batch_size": "256"}
    recipe = load_recipe("nas/digits/darts_supernet.py", options)
    path = train_supernet(recipe, work_dir=tmp_path)
    subnet = read_mapping(path.with_name("fix_subnet.yaml"))
    algorithm = build_supernet(recipe)
    algorithm.architecture.load_state_dict(torch.load(path), strict=True)
    assert load_fix_subnet(darts_digits(), subnet)(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    assert len(subnet["normal_n3"]["chosen"]) == 2
    assert read_mapping(tmp_path / "subnet_epoch_1.yaml") == subnet
