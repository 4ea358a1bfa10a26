"""AutoSlim, slimmable networks and DMCP: what a step trains, and what it leaves alone."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from razordeploy.compress.pruning.algorithms.autoslim import AutoSlim
from razordeploy.compress.pruning.algorithms.dmcp import DMCP
from razordeploy.compress.pruning.algorithms.slimmable import SlimmableNetwork, read_subnet
from razordeploy.compress.pruning.result import sliced
from razordeploy.compress.pruning.train import write_subnets
from razordeploy.errors import RecipeError
from razordeploy.subnet.files import write_mapping
from razordeploy.train.classifier import ShiftAndFlip
from tests.compress.distill.tiny import images, kd, targets, tiny
from tests.compress.pruning.conftest import at, batch

FIRST, SECOND = "conv1_(0, 4)_4", "conv2_(0, 8)_8"
RATIOS = {"candidate_choices": [0.25, 0.5, 1.0], "choice_mode": "ratio"}


def sgd(module, lr=0.0, **options):
    return OptimWrapper(torch.optim.SGD(module.parameters(), lr, **options))


class Kept:
    """An optimizer wrapper that keeps the gradients of its only step."""

    def __init__(self, module, **options):
        self.wrapper = sgd(module, **options)
        self.module = module
        self.gradients = None
        self.wrapper.step = self.step

    def step(self):
        self.gradients = {k: None if p.grad is None else p.grad.clone() for k, p in self.module.named_parameters()}


@pytest.fixture
def autoslim(mutator_cfg):
    def make(distiller=None, dropout=0.0, **options):
        config = mutator_cfg("OneShotChannelMutator", "OneShotMutableChannelUnit", RATIOS)
        return AutoSlim(tiny(dropout=dropout), config, distiller, data_preprocessor=ShiftAndFlip(), **options).train()

    return make


def test_the_sandwich_is_largest_random_smallest(autoslim):
    algorithm = autoslim(num_samples=3)
    seen = []
    handle = algorithm.architecture.conv2.register_forward_pre_hook(
        lambda module, inputs: seen.append((inputs[0].shape[1], module.channel_mask("out_channels").sum().item()))
    )
    log = algorithm.train_step(batch(), sgd(algorithm.architecture))
    handle.remove()
    assert len(seen) == 5 and seen[0] == (4, 8) and seen[-1] == (1, 2)
    names = ["max_subnet", "random_subnet_0", "random_subnet_1", "random_subnet_2", "min_subnet"]
    assert list(log) == [*(f"{name}.loss" for name in names), "loss"]
    assert float(log["loss"]) == pytest.approx(sum(float(log[f"{name}.loss"]) for name in names))


@pytest.mark.parametrize("accumulative_counts", [1, 4])
def test_gradient_is_the_sum_of_separate_passes(autoslim, accumulative_counts):
    # mmrazor's recipes set accumulative_counts to the number of subnets, which there divides every loss by it.
    algorithm = autoslim(distiller=kd())
    drawn = [{FIRST: 0.5, SECOND: 0.25}, {FIRST: 1.0, SECOND: 0.5}]
    separate = copy.deepcopy(algorithm)
    queue = iter(drawn)
    algorithm.mutator.sample_choices = lambda: next(queue)
    kept = Kept(algorithm.architecture)
    kept.wrapper._accumulative_counts = accumulative_counts
    log = algorithm.train_step(batch(), kept.wrapper)

    total = {}
    model, mutator = separate.architecture, separate.mutator
    teacher = None
    for choices in (mutator.max_choices, *drawn, mutator.min_choices):
        mutator.set_choices(choices)
        model.zero_grad()
        logits = model(images())
        loss = nn.functional.cross_entropy(logits, targets())
        if teacher is None:
            teacher = (logits.detach() / 4).softmax(1)
        else:
            student = (logits / 4).log_softmax(1)
            loss = loss + 16 * nn.functional.kl_div(student, teacher, reduction="batchmean")
        loss.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad
    assert kept.gradients is not None
    for name, gradient in kept.gradients.items():
        torch.testing.assert_close(gradient, total[name], atol=1e-6, rtol=1e-5)
    assert "min_subnet.distill.loss_kl" in log and "max_subnet.distill.loss_kl" not in log


def test_only_the_largest_has_dropout(autoslim):
    algorithm = autoslim(dropout=0.5)
    seen = []
    algorithm.architecture.dropout.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    algorithm.train_step(batch(), sgd(algorithm.architecture))
    assert seen == [True, False, False, False] and algorithm.architecture.dropout.training


def test_no_graph_is_kept_after_a_step(autoslim):
    algorithm = autoslim(distiller=kd())
    algorithm.train_step(batch(), sgd(algorithm.architecture))
    records = [*algorithm.distiller.teacher_recorders.recorders.values()]
    assert all(not recorder.data_buffer for recorder in records)


@pytest.fixture
def slimmable(mutator_cfg):
    config = mutator_cfg("SlimmableChannelMutator", "SlimmableChannelUnit", RATIOS)
    return SlimmableNetwork(tiny(), config, data_preprocessor=ShiftAndFlip()).train()


def test_every_subnet_has_norms_of_its_own_and_is_trained(slimmable, tmp_path):
    wrapper = sgd(slimmable, lr=0.1)
    before = {key: value.clone() for key, value in slimmable.state_dict().items()}
    log = slimmable.train_step(batch(), wrapper)
    assert [key for key in log if key.endswith(".loss")] == ["subnet_2.loss", "subnet_1.loss", "subnet_0.loss"]
    after = slimmable.state_dict()
    norms = [key for key in after if "bn" in key and "num_batches" not in key]
    assert any("candidate_bn.2." in key for key in norms)
    assert all(not torch.equal(before[key], after[key]) for key in norms)

    slimmable.eval().settle()
    write_subnets(slimmable, tmp_path)
    sizes = []
    for index in range(3):
        slimmable.mutator.switch(index)
        expected = slimmable(images())
        small = sliced(slimmable)[1]
        small.load_state_dict(torch.load(tmp_path / f"subnet_{index}.pth", weights_only=True), strict=True)
        torch.testing.assert_close(small(images()), expected, atol=1e-5, rtol=0)
        sizes.append((tmp_path / f"subnet_{index}.pth").stat().st_size)
        assert not any("candidate_bn" in key for key in small.state_dict())
    # mmrazor's split checkpoints have the supernet's size.
    counts = [sum(p.numel() for p in _static(slimmable, index).parameters()) for index in range(3)]
    assert counts == sorted(counts) and counts[0] < 0.25 * counts[2] and sizes == sorted(sizes)


def _static(algorithm, index):
    algorithm.mutator.switch(index)
    return sliced(algorithm)[1]


def test_subnet_files_are_the_subnets(mutator_cfg, tmp_path):
    write_mapping(tmp_path / "a.yaml", {FIRST: 2, SECOND: 3})
    written = {
        "type": "OneShotChannelMutator",
        "channel_unit_cfg": {"units": {FIRST: {"choice": 4}, SECOND: {"choice": 8}}},
    }
    write_mapping(tmp_path / "b.json", written)
    assert read_subnet(tmp_path / "b.json") == {FIRST: 4, SECOND: 8}
    parse = {"parse_cfg": {"type": "ChannelAnalyzer", "demo_input": (1, 1, 8, 8)}}
    paths = [str(tmp_path / "a.yaml"), str(tmp_path / "b.json")]
    algorithm = SlimmableNetwork(tiny(), parse, channel_cfg_paths=paths, deploy_index=0)
    assert [list(subnet.values()) for subnet in algorithm.mutator.subnets] == [[2, 3], [4, 8]]
    assert algorithm.trained == [0]
    assert algorithm.mutator.unit(SECOND).current_choice == 3
    with pytest.raises(RecipeError, match="a deploy_index from -1 to 1, got 2"):
        SlimmableNetwork(tiny(), parse, channel_cfg_paths=paths, deploy_index=2)


@pytest.fixture
def dmcp(mutator_cfg):
    def make(**options):
        config = mutator_cfg("DMCPChannelMutator", "DMCPChannelUnit", pruning_cfg=(0.25, 1.0, 0.25))
        options = {"arch_start_train": 2, "arch_train_freq": 2, "distillation_times": 0, **options}
        return DMCP(tiny(), kd(), config, data_preprocessor=ShiftAndFlip(), **options).train()

    return make


def optimizers(algorithm, lr=0.1):
    return OptimWrapperDict(architecture=sgd(algorithm.architecture, lr), mutator=sgd(algorithm.mutator, lr))


def snapshot(module):
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def changed(before, after):
    return {key for key, value in after.items() if not torch.equal(before[key], value)}


def test_architecture_parameters_step_when_it_is_due(dmcp):
    algorithm = dmcp(target_flops=0.002)
    wrapper = optimizers(algorithm)
    stepped = []
    for iteration in range(6):
        at(algorithm, iteration)
        before = snapshot(algorithm.mutator.arch_params)
        log = algorithm.train_step(batch(), wrapper)
        stepped.append(bool(changed(before, snapshot(algorithm.mutator.arch_params))))
        assert ("arch.loss" in log) == stepped[-1]
    assert stepped == [False, False, True, False, True, False]


def test_a_step_of_one_kind_leaves_the_other_alone(dmcp):
    algorithm = dmcp(target_flops=0.002)
    wrapper = optimizers(algorithm)
    at(algorithm, 2)
    before = snapshot(algorithm.architecture)
    algorithm.update_arch_params(batch(), wrapper["mutator"])
    assert changed(before, snapshot(algorithm.architecture)) <= {"bn1.num_batches_tracked", "bn2.num_batches_tracked"}
    assert all(p.grad is None for p in algorithm.architecture.parameters())
    assert all(p.requires_grad for p in algorithm.architecture.parameters())
    at(algorithm, 0)
    params = snapshot(algorithm.mutator.arch_params)
    algorithm.train_step(batch(), wrapper)
    assert not changed(params, snapshot(algorithm.mutator.arch_params))
    assert all(p.grad is None for p in algorithm.mutator.arch_params.values())


def test_a_group_that_is_kept_for_sure_can_still_go(dmcp):
    # Where the loss once asks for more than everything, the parameter would leave the range that has a gradient.
    algorithm = dmcp(target_flops=0.002, flop_loss_weight=0.0)
    wrapper = optimizers(algorithm, lr=10.0)
    for iteration in range(2, 8, 2):
        at(algorithm, iteration)
        algorithm.update_arch_params(batch(), wrapper["mutator"])
    parameters = list(algorithm.mutator.arch_params.values())
    assert all(p.min().item() >= 0 for p in parameters)
    algorithm.flop_loss_weight = 1.0
    algorithm.flops_loss()[1].backward()
    # Groups behind one that is all but gone hardly count; the first of each unit does.
    assert all(p.grad[0].item() < 0 for p in parameters)


def test_expected_cost_is_the_count_at_whole_numbers(dmcp):
    algorithm = dmcp()
    costs = algorithm.costs
    parameters = [algorithm.mutator.arch_param_of(name) for name in (FIRST, SECOND)]
    for kept in ((0, 0), (1, 3), (3, 2), (3, 3)):
        with torch.no_grad():
            for parameter, count in zip(parameters, kept, strict=True):
                parameter.copy_(torch.where(torch.arange(3) < count, 0.0, 1e4))
        algorithm.set_subnet("expected")
        assert algorithm.mutator.current_choices == {FIRST: 1 + kept[0], SECOND: 2 + 2 * kept[1]}
        counted = costs.mega_macs(costs.now())
        expected = costs.expected_mega_macs(algorithm.mutator.expected_channels())
        assert expected.item() == pytest.approx(counted, rel=1e-9)
        x = images(1)

        with FlopCounterMode(display=False) as counter:
            sliced(algorithm.eval())[1](x)
        assert counter.get_total_flops() == 2 * counted * 1e6


def test_expected_cost_is_the_mean_of_samples_and_differentiable(dmcp):
    algorithm = dmcp()
    costs = algorithm.costs
    with torch.no_grad():
        for parameter in algorithm.mutator.arch_params.values():
            parameter.copy_(torch.tensor([0.2, 0.6, 0.4]))
    expected = costs.expected_mega_macs(algorithm.mutator.expected_channels())
    samples = []
    for _ in range(1500):
        algorithm.set_subnet("direct")
        samples.append(costs.mega_macs(costs.now()))
    found = torch.tensor(samples, dtype=torch.float64)
    assert abs((found.mean() - expected).item()) < 3 * float(found.std()) / len(samples) ** 0.5
    parameter = algorithm.mutator.arch_param_of(SECOND)
    gradient = torch.autograd.grad(expected, parameter)[0]
    values = []
    for step in (1e-2, -1e-2):
        with torch.no_grad():
            parameter[1] += step
            values.append(costs.expected_mega_macs(algorithm.mutator.expected_channels()).item())
            parameter[1] -= step
    assert float(gradient[1]) == pytest.approx((values[0] - values[1]) / 2e-2, rel=1e-2)


@pytest.mark.parametrize("kind", ["log_l1", "l1", "l2", "inverted_log_l1"])
def test_the_cost_goes_to_its_target(dmcp, kind):
    algorithm = dmcp(flops_loss_type=kind, target_flops=0.0025)
    start = algorithm.costs.mega_macs(algorithm.costs.whole)
    assert start > 0.005
    optimizer = torch.optim.Adam(algorithm.mutator.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        algorithm.flops_loss()[1].backward()
        optimizer.step()
    flops = algorithm.flops_loss()[0].item()
    assert 0.93 * 0.0025 < flops < 1.07 * 0.0025


def test_a_fixed_subnet_is_trained_alone(dmcp):
    algorithm = dmcp(fix_subnet={FIRST: 2, SECOND: 4})
    wrapper = sgd(algorithm.architecture, lr=0.1)
    before = snapshot(algorithm.architecture)
    algorithm.train_step(batch(), wrapper)
    after = snapshot(algorithm.architecture)
    assert torch.equal(after["conv1.weight"][2:], before["conv1.weight"][2:])
    assert not torch.equal(after["conv1.weight"][:2], before["conv1.weight"][:2])
    algorithm.settle()
    assert algorithm.mutator.current_choices == {FIRST: 2, SECOND: 4}


def test_one_optimizer_for_both_is_refused(dmcp):
    algorithm = dmcp()
    with pytest.raises(RecipeError, match="an optimizer for the architecture and one for the mutator"):
        algorithm.train_step(batch(), sgd(algorithm))
    with pytest.raises(RecipeError, match="unknown flops_loss_type 'log_l2'; did you mean 'log_l1'"):
        dmcp(flops_loss_type="log_l2")
    with pytest.raises(RecipeError, match="a strategy that begins with 'max'"):
        dmcp(strategy=["min"])
