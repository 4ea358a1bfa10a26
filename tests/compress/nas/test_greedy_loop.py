from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch.utils.data import DataLoader

from razordeploy.compress.nas.algorithms.spos import SPOS
from razordeploy.compress.nas.greedy_loop import GreedySamplerTrainLoop
from razordeploy.compress.nas.loops import LOOPS
from razordeploy.compress.nas.supernets.digits import bignas_digits, spos_digits
from razordeploy.data.sources import build_source
from razordeploy.errors import RecipeError
from tests.subnet.nets import randomise

pytestmark = pytest.mark.filterwarnings("ignore:Dataset Digits has no metainfo")


@pytest.fixture(scope="module")
def data():
    train, test = (build_source({"type": "digits"}, split) for split in ("train", "test"))
    return DataLoader(train, batch_size=32), DataLoader(test, batch_size=50)


def _loop(data, architecture=None, **options):
    torch.manual_seed(0)
    algorithm = SPOS(architecture=architecture or randomise(spos_digits(width=4)))
    optimizer = OptimWrapper(torch.optim.SGD(algorithm.parameters(), 0.01))
    runner = SimpleNamespace(
        model=algorithm,
        optim_wrapper=optimizer,
        val_loop=None,
        val_dataloader=data[1],
        call_hook=lambda name, **given: None,
        logger=logging.getLogger("nas"),
        seed=3,
    )
    defaults = {"num_samples": 6, "top_k": 2, "num_val_batches": 2, "schedule_start_iter": 4, "schedule_end_iter": 5}
    return GreedySamplerTrainLoop(runner, data[0], **{"max_iters": 12, "max_prob": 1.0, **defaults, **options})


def test_it_turns_to_paths_of_the_pool(data):
    loop = _loop(data)
    algorithm, trained = loop.algorithm, []
    step = algorithm.train_step
    algorithm.train_step = lambda *given, **named: (
        step(*given, **named),
        trained.append(dict(algorithm.mutator.current_choices)),
    )
    before = algorithm.mutator.sample_choices
    assert loop.run() is algorithm
    assert len(trained) == 12
    assert len({str(sorted(path.items())) for path in trained[:4]}) == 4
    # The pool had its first paths before the fifth iteration, and grew afterwards.
    good = [one.subnet for one in loop.sampler.pool]
    assert all(path in good for path in trained[6:])
    assert algorithm.mutator.sample_choices == before
    scores = [one.score for one in loop.sampler.pool]
    assert scores == sorted(scores, reverse=True)


def test_judging_changes_nothing(data):
    loop = _loop(data, randomise(bignas_digits()))
    algorithm = loop.algorithm.train()
    before = {key: value.clone() for key, value in algorithm.state_dict().items()}
    modes = [module.training for module in algorithm.modules()]
    choices = algorithm.mutator.current_choices
    loop.refresh()
    assert len(loop.sampler.pool) == 2
    assert all(torch.equal(value, before[key]) for key, value in algorithm.state_dict().items())
    assert [module.training for module in algorithm.modules()] == modes
    assert algorithm.mutator.current_choices == choices
    # A score is the negative loss with the statistics of the batch.
    path = loop.sampler.pool[0].subnet
    algorithm.mutator.set_choices(path)
    with torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(algorithm.architecture(batch[0]), batch[1]) for batch in loop.batches
        ]
    assert loop.sampler.pool[0].score == pytest.approx(-float(sum(losses) / len(losses)), rel=1e-5)


def test_paths_keep_to_the_limits(data):
    free, limited = _loop(data), _loop(data, constraints_range={"flops": (0.0, 0.04)})
    costs = limited.sampler.bounded.costs
    assert max(costs(limited.sample_choices())["macs"] for _ in range(10)) <= 0.04
    assert max(costs(free.sample_choices())["macs"] for _ in range(20)) > 0.04
    assert limited.sample_choices("max") == limited.algorithm.mutator.max_choices
    with pytest.raises(RecipeError, match="unknown constraint 'latency'"):
        _loop(data, constraints_range={"latency": (0, 1)})


def test_what_it_needs(data):
    loop = _loop(data)
    loop.runner.val_dataloader = None
    with pytest.raises(RecipeError, match="no held-out data"):
        GreedySamplerTrainLoop(loop.runner, data[0], 3)
    del loop.runner.model.mutator
    with pytest.raises(RecipeError, match="has no mutator"):
        GreedySamplerTrainLoop(loop.runner, data[0], 3)
    assert LOOPS["GreedySamplerTrainLoop"] is GreedySamplerTrainLoop
