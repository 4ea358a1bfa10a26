from __future__ import annotations

import math

import pytest

from razordeploy.config.search import SearchConfig
from razordeploy.errors import RecipeError


def _parse(**section):
    return SearchConfig.parse(section, "r.py")


def test_defaults_and_every_key():
    assert _parse() == SearchConfig()
    found = _parse(
        type="evolution",
        max_epochs=3,
        num_mutation=0,
        mutation_prob=0.2,
        constraints={"macs": 300, "params": (1, "2.5M"), "latency@openvino": (0.5, "2 ms")},
        score="top5",
        split="train",
        num_samples=100,
        recalibrate=0,
        latency=dict(backends="onnxruntime", samples=8, seconds=0.1, threads=1),
        predictor=dict(type="RBFHandler", kernel="cubic", train_samples=10, verify=2),
    )
    assert found.options == {"max_epochs": 3, "num_mutation": 0, "mutation_prob": 0.2}
    assert found.constraints == {"macs": (0, 300), "params": (1, 2.5), "latency@openvino": (0.5, 2.0)}
    assert found.latency_backends == ("onnxruntime", "openvino")
    assert (found.score, found.split, found.num_samples, found.recalibrate) == ("top5", "train", 100, 0)
    assert found.predictor is not None
    assert found.predictor.options == {"kernel": "cubic"}


def test_bounds_in_percent_and_with_units():
    found = _parse(constraints={"macs": "60%", "flops": ("0.2G", "1.5G"), "params": ("10%", "500K")})
    assert found.constraints["flops"] == (200.0, 1500.0)
    assert found.shares == {"macs": (None, 0.6), "params": (0.1, None)}
    assert found.constraints["macs"] == (0.0, math.inf)
    assert found.constraints["params"] == (-math.inf, 0.5)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (dict(type="evolve"), "unknown search 'evolve' in 'search'; known: evolution, greedy, random"),
        (dict(max_epoch=3), "unknown key 'max_epoch' in 'search'; did you mean 'max_epochs'"),
        (dict(type="random", max_epochs=3), "unknown key 'max_epochs'"),
        (dict(max_epochs=0), "an integer of at least 1 for 'search.max_epochs'"),
        (dict(mutation_prob=1.5), "a probability from 0 to 1"),
        (dict(constraints={"mac": 3}), "unknown constraint 'mac' in 'search.constraints'; did you mean 'macs'"),
        (dict(constraints={"latency@": 3}), "unknown constraint 'latency@'"),
        (dict(constraints={"macs": (3, 1)}), "a range .lowest, highest."),
        (dict(constraints={"macs": (1, 2, 3)}), "one highest value or a range"),
        (dict(constraints={"macs": "3ms"}), "numbers, or text such as '300M'"),
        (dict(constraints={"latency@openvino": "3M"}), "numbers, or text"),
        (dict(constraints={"macs": True}), "numbers, or text"),
        (dict(constraints=[1]), "a dict such as dict.macs"),
        (dict(type="greedy"), "needs 'search.targets'"),
        (dict(type="greedy", targets=[]), "positive numbers such as"),
        (dict(type="greedy", targets=[3], predictor={}), "no predictor with a greedy search"),
        (dict(type="greedy", targets=[3], resource="latency"), "one of macs, flops, params"),
        (dict(latency=dict(backend="openvino")), "unknown key 'backend' in 'search.latency'"),
        (dict(latency=dict(samples=2)), "an integer of at least 4"),
        (dict(predictor="RBFHandler"), "expected a dict for 'search.predictor'"),
        (dict(predictor=dict(encoding="one")), "'onehot' or 'normal'"),
        (dict(init_candidates=[3]), "a list of subnets"),
    ],
)
def test_wrong_sections(section, message):
    with pytest.raises(RecipeError, match=message):
        SearchConfig.parse(section, "r.py")


def test_the_predecessors_loops_are_read():
    loop = dict(
        type="mmrazor.EvolutionSearchLoop",
        dataloader=dict(batch_size=250),
        evaluator=dict(type="mmcls.Accuracy"),
        max_epochs=20,
        num_candidates=50,
        top_k=10,
        num_mutation=25,
        num_crossover=25,
        mutation_prob=0.1,
        calibrate_sample_num=4096,
        constraints_range=dict(flops=(0.0, 465.0), params=(0.0, 6.0)),
        score_key="accuracy/top1",
        predictor_cfg=dict(
            type="mmrazor.MetricPredictor",
            train_samples=20,
            handler_cfg=dict(type="mmrazor.GaussProcessHandler"),
        ),
    )
    found = SearchConfig.of_recipe({"train_cfg": loop}, "r.py")
    assert found is not None
    # What mmrazor calls FLOPs are multiply-accumulates.
    assert found.constraints == {"macs": (0.0, 465.0), "params": (0.0, 6.0)}
    assert (found.type, found.score, found.recalibrate) == ("evolution", "top1", 4096)
    assert found.options["num_mutation"] == 25
    assert found.predictor is not None
    assert (found.predictor.type, found.predictor.train_samples) == ("GaussProcessHandler", 20)
    greedy = dict(type="AutoSlimGreedySearchLoop", target_flops=(500, 300, 200), estimator_cfg={}, dataloader={})
    found = SearchConfig.of_recipe({"train_cfg": greedy}, "r.py")
    assert found is not None
    assert (found.type, found.options) == ("greedy", {"targets": (500, 300, 200)})
    assert SearchConfig.of_recipe({"train_cfg": dict(by_epoch=True)}, "r.py") is None
    assert SearchConfig.of_recipe({}, "r.py") is None
    with pytest.raises(RecipeError, match="unknown key 'max_epoch' in 'train_cfg'"):
        SearchConfig.of_recipe({"train_cfg": dict(loop, max_epoch=3)}, "r.py")
