"""What is logged, saved, validated and searched around a run."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from razordeploy.compress.algorithm.train import train_algorithm
from razordeploy.compress.pruning.algorithms.autoslim import AutoSlim
from razordeploy.compress.pruning.algorithms.dmcp import DMCP
from razordeploy.compress.pruning.algorithms.group_fisher import GroupFisherAlgorithm, group_fisher_sub_model
from razordeploy.compress.pruning.algorithms.ite_prune import ItePruneAlgorithm
from razordeploy.compress.pruning.algorithms.slimmable import SlimmableNetwork, read_subnet
from razordeploy.compress.pruning.hooks import DMCPSubnetHook, PruningStructureHook, ResourceInfoHook
from razordeploy.compress.pruning.loops import LOOPS, AutoSlimGreedySearchLoop, ItePruneValLoop, SlimmableValLoop
from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.fix import load_fix_subnet
from razordeploy.train.classifier import ShiftAndFlip
from tests.compress.distill.tiny import images, samples, tiny
from tests.compress.pruning.conftest import at, batch
from tests.compress.pruning.processes import RATIOS

FIRST, SECOND = "conv1_(0, 4)_4", "conv2_(0, 8)_8"


class Accuracy(Evaluator):
    """Share of the class indices that are right, in percent."""

    def __init__(self) -> None:
        super().__init__([])
        self.right: list[torch.Tensor] = []

    def process(self, data_samples: Any, data_batch: Any = None) -> None:
        self.right.append(data_samples == data_batch[1])

    def evaluate(self, size: int) -> dict[str, float]:
        found, self.right = torch.cat(self.right), []
        assert len(found) == size
        return {"accuracy/top1": 100 * float(found.float().mean())}


@pytest.fixture
def runner(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="run")

    def make(model, iteration=0):
        loader = DataLoader(samples("train"), batch_size=16)
        return SimpleNamespace(
            model=model,
            iter=iteration,
            epoch=0,
            work_dir=str(tmp_path),
            logger=logging.getLogger("run"),
            train_dataloader=loader,
            train_loop=SimpleNamespace(stop_training=False),
            visualizer=SimpleNamespace(),
            call_hook=lambda *args, **kwargs: None,
        )

    return make


def loop(kind, runner, **options):
    return kind(runner, DataLoader(samples("test"), batch_size=16), Accuracy(), **options)


@pytest.fixture
def fisher(mutator_cfg):
    config = mutator_cfg("GroupFisherChannelMutator", "GroupFisherChannelUnit", {"mutate_linear": True})
    algorithm = GroupFisherAlgorithm(tiny(), config, interval=1, data_preprocessor=ShiftAndFlip()).train()
    algorithm.config = config
    return algorithm


def test_structure_and_importance_are_logged(runner, fisher, caplog):
    hook = PruningStructureHook(by_epoch=False, interval=2)
    hook.after_train_iter(runner(fisher, 0), 0)
    assert not caplog.text
    hook.after_train_iter(runner(fisher, 1), 1)
    assert f'"{SECOND}": 8' in caplog.text and f"importance of {FIRST}" in caplog.text
    with pytest.raises(RecipeError, match="PruningStructureHook: Tiny is no pruning algorithm"):
        hook.after_train_iter(runner(tiny(), 1), 1)
    with pytest.raises(ModelError, match="an interval of at least 1, got 0"):
        PruningStructureHook(interval=0)


def test_a_checkpoint_is_saved_below_each_share(runner, fisher, tmp_path):
    from mmengine.optim import OptimWrapper

    hook = ResourceInfoHook(interval=1, save_ckpt_thr=[0.3, 0.6])
    wrapper = OptimWrapper(torch.optim.SGD(fisher.parameters(), 0.01))
    hook.before_train(runner(fisher))
    for iteration in range(12):
        state = runner(fisher, iteration)
        at(fisher, iteration)
        fisher.train_step(batch(), wrapper)
        hook.after_train_iter(state, iteration)
        if state.train_loop.stop_training:
            break
    assert state.train_loop.stop_training and fisher.pruning_stopped
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == ["flops_0.30.pth", "flops_0.60.pth"]
    for share in (0.6, 0.3):
        described = {
            "type": "mmrazor.GroupFisherAlgorithm",
            "architecture": tiny(2),
            "mutator": fisher.config,
            "init_cfg": {"type": "Pretrained", "checkpoint": str(tmp_path / f"flops_{share:.2f}.pth")},
        }
        small = group_fisher_sub_model(described)
        macs = small.conv1.weight.numel() * 16 + small.conv2.weight.numel() * 16 + small.fc.weight.numel()
        assert macs / 5208 < share
    with pytest.raises(RecipeError, match="unknown resource_type 'flop'; did you mean 'flops'"):
        ResourceInfoHook(resource_type="flop")


def test_subnets_of_the_target_are_drawn(runner, mutator_cfg, autoslim, tmp_path):
    config = mutator_cfg("DMCPChannelMutator", "DMCPChannelUnit", pruning_cfg=(0.25, 1.0, 0.25))
    algorithm = DMCP(tiny(), None, config, target_flops=0.003)
    with torch.no_grad():
        for parameter in algorithm.mutator.arch_params.values():
            parameter.fill_(0.3)
    DMCPSubnetHook(subnet_sample_num=3, tolerance=0.3).after_train(runner(algorithm))
    files = sorted((tmp_path / "model_sample").glob("subnet_*.yaml"))
    assert len(files) == 3 and (tmp_path / "model_sample" / "expected_ch.yaml").is_file()
    for file in files:
        algorithm.set_subnet(read_subnet(file))
        assert abs(algorithm.costs.mega_macs(algorithm.costs.now()) - 0.003) <= 0.3 * 0.003
    with pytest.raises(RecipeError, match="has no architecture parameters"):
        DMCPSubnetHook().after_train(runner(autoslim))


def test_validation_writes_the_subnet_as_it_is(runner, mutator_cfg, tmp_path):
    config = mutator_cfg("ChannelMutator", "L1MutableChannelUnit")
    algorithm = ItePruneAlgorithm(tiny(7), config, target_pruning_ratio=0.5, data_preprocessor=ShiftAndFlip())
    algorithm.train().prune_if_due()
    metrics = loop(ItePruneValLoop, runner(algorithm)).run()
    expected = algorithm.eval()(images())
    small = load_fix_subnet(tiny(), tmp_path / "fix_subnet.yaml").eval()
    small.load_state_dict(torch.load(tmp_path / "fix_subnet_weight.pth", weights_only=True), strict=True)
    torch.testing.assert_close(small(images()), expected, atol=1e-5, rtol=0)
    assert set(metrics) == {"accuracy/top1"}


def test_every_width_is_validated(runner, mutator_cfg, autoslim):
    config = mutator_cfg("SlimmableChannelMutator", "SlimmableChannelUnit", RATIOS)
    algorithm = SlimmableNetwork(tiny(7, width=4), config, data_preprocessor=ShiftAndFlip()).train()
    metrics = loop(SlimmableValLoop, runner(algorithm)).run()
    assert list(metrics) == [f"subnet_{index}.accuracy/top1" for index in range(3)]
    algorithm.mutator.switch(1)
    x, y = (torch.stack([torch.as_tensor(part) for part in parts]) for parts in zip(*samples("test"), strict=True))
    assert metrics["subnet_1.accuracy/top1"] == pytest.approx(100 * float((algorithm(x).argmax(1) == y).float().mean()))
    with pytest.raises(RecipeError, match="SlimmableValLoop needs SlimmableNetwork, got AutoSlim"):
        loop(SlimmableValLoop, runner(autoslim)).run()


@pytest.fixture
def autoslim(mutator_cfg):
    config = mutator_cfg("OneShotChannelMutator", "OneShotMutableChannelUnit", RATIOS)
    return AutoSlim(tiny(7), config, data_preprocessor=ShiftAndFlip()).train()


def test_greedy_slimming_takes_the_step_that_hurts_least(runner, autoslim, tmp_path):
    before = {key: value.clone() for key, value in autoslim.state_dict().items()}
    search = loop(AutoSlimGreedySearchLoop, runner(autoslim), target_flops=[0.003, 0.001])
    search.run()
    # The supernet is as it was: subnets are copies.
    assert all(torch.equal(value, before[key]) for key, value in autoslim.state_dict().items())
    costs = [one.costs["macs"] for _, one in sorted(search.found.items(), reverse=True)]
    assert costs[0] <= 0.003 and costs[1] <= 0.001 and costs[0] >= costs[1]
    wide, narrow = (search.found[target].subnet for target in (0.003, 0.001))
    assert all(narrow[name] <= wide[name] for name in wide)
    for target, one in search.found.items():
        file = tmp_path / f"FLOPS_{target}M.yaml"
        small = load_fix_subnet(tiny(), file)
        assert small.conv2.weight.shape[:2] == (round(one.subnet[SECOND] * 8), round(one.subnet[FIRST] * 4))
    # From its state the same comes out again, without a look at the data.
    again = loop(AutoSlimGreedySearchLoop, runner(autoslim), target_flops=[0.003, 0.001])
    again.resume_from = str(tmp_path / "greedy_search.json")
    again.score = None
    again.run()
    assert {t: one.subnet for t, one in again.found.items()} == {t: one.subnet for t, one in search.found.items()}


def test_the_loop_takes_the_place_of_training(autoslim, tmp_path):
    recipe = SimpleNamespace(
        seed=0,
        data={"type": "tests.compress.distill.tiny:samples"},
        train=None,
        path=tmp_path / "recipe.py",
        config={
            "train_cfg": {
                "type": "mmrazor.AutoSlimGreedySearchLoop",
                "dataloader": DataLoader(samples("test"), batch_size=16),
                "evaluator": Accuracy(),
                "target_flops": [0.002],
            },
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
            "default_scope": "mmengine",
        },
    )
    before = {key: value.clone() for key, value in autoslim.architecture.state_dict().items()}
    path = train_algorithm(
        autoslim, autoslim.architecture, recipe, names=LOOPS, work_dir=tmp_path / "run", checkpoint="supernet.pth"
    )
    small = load_fix_subnet(tiny(), tmp_path / "run" / "FLOPS_0.002M.yaml")
    macs = small.conv1.weight.numel() * 16 + small.conv2.weight.numel() * 16 + small.fc.weight.numel()
    assert macs <= 2000
    assert all(torch.equal(value, before[key]) for key, value in torch.load(path, weights_only=True).items())


def test_a_target_below_the_smallest_is_refused(runner, autoslim):
    with pytest.raises(ModelError, match="no subnet has macs of at most 1e-06"):
        loop(AutoSlimGreedySearchLoop, runner(autoslim), target_flops=[1e-6]).run()
    with pytest.raises(ModelError, match="no metric is called 'top1'"):
        loop(AutoSlimGreedySearchLoop, runner(autoslim), target_flops=[0.001], score_key="top1").run()
