from __future__ import annotations

import random

import numpy as np
import pytest

from razordeploy.compress.nas.search.driver import run_predicted_search
from razordeploy.compress.nas.search.evolution import EvolutionSearch
from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.metric_predictor import MetricPredictor, correlation
from razordeploy.compress.nas.search.predictors import HANDLERS
from razordeploy.compress.nas.search.random_search import RandomSearch
from razordeploy.compress.nas.search.scored import Scored
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.errors import ModelError, RecipeError, UsageError
from razordeploy.registry import TASK_UTILS

SPACE = SearchSpace({f"layer{i}": ("a", "b", "c") for i in range(8)})
_RNG = random.Random(0)
OWN = {name: {choice: _RNG.gauss(0, 1) for choice in choices} for name, choices in SPACE.groups.items()}


def _score(subnet):
    """Accuracy-like: choices add up, neighbours of one kind get in each other's way, and it saturates."""
    values = list(subnet.values())
    total = sum(OWN[name][choice] for name, choice in subnet.items())
    total -= 0.5 * sum(a == b for a, b in zip(values, values[1:], strict=False))
    return 70 + 25 * float(np.tanh(total / 8))


def _subnets(count, seed):
    rng = random.Random(seed)
    return [SPACE.sample(rng) for _ in range(count)]


@pytest.mark.parametrize("encoding", ["onehot", "normal"])
@pytest.mark.parametrize("kind", HANDLERS)
def test_rank_correlation_on_subnets_it_has_not_seen(kind, encoding):
    options = {"num_trees": 100} if kind == "CartsHandler" else {}
    predictor = MetricPredictor({"type": kind, **options}, SPACE, encoding_type=encoding)
    train, others = _subnets(120, 1), _subnets(150, 2)
    noise = random.Random(3)
    predictor.fit(train, [_score(one) + noise.gauss(0, 0.5) for one in train])
    found = correlation(predictor.predict_subnets(others), [_score(one) for one in others])
    # The position of a choice in its list says less than which choice it is.
    assert found["spearman"] > (0.75 if encoding == "onehot" else 0.55), found
    assert predictor.left_out["spearman"] == pytest.approx(found["spearman"], abs=0.2)


def test_checkpoints_hold_data_and_no_code(tmp_path):
    predictor = MetricPredictor({"type": "RBFHandler", "kernel": "cubic"}, SPACE, score_key="accuracy_top-1")
    assert not predictor.initialize
    train = _subnets(30, 1)
    predictor.fit(train, [_score(one) for one in train])
    predictor.save_checkpoint(tmp_path / "predictor.json")
    again = MetricPredictor({"type": "RBFHandler", "kernel": "cubic"}, SPACE, handler_ckpt=tmp_path / "predictor.json")
    other = _subnets(1, 5)[0]
    assert again.predict(other)["top1"] == pytest.approx(predictor.predict(other)["accuracy_top-1"])
    smaller = SearchSpace({"layer0": ("a", "b")})
    with pytest.raises(ModelError, match="another search space"):
        MetricPredictor({"type": "RBFHandler"}, smaller, handler_ckpt=tmp_path / "predictor.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ModelError, match="no checkpoint of a predictor"):
        MetricPredictor({"type": "RBFHandler"}, SPACE, handler_ckpt=tmp_path / "broken.json")
    assert predictor.vector2model(predictor.model2vector(other)) == other


def test_wrong_use():
    with pytest.raises(RecipeError, match="did you mean 'RBFHandler'"):
        MetricPredictor({"type": "RBFHandlers"}, SPACE)
    with pytest.raises(UsageError, match="unknown kernel 'tpz'"):
        MetricPredictor({"type": "RBFHandler", "kernel": "tpz"}, SPACE)
    with pytest.raises(UsageError, match="not been fitted"):
        MetricPredictor({"type": "MLPHandler"}, SPACE).predict(_subnets(1, 0)[0])
    with pytest.raises(ModelError, match="at least 4 subnets"):
        MetricPredictor({"type": "MLPHandler"}, SPACE).fit(_subnets(3, 0), [1.0, 2.0, 3.0])
    with pytest.raises(ModelError, match="finite"):
        MetricPredictor({"type": "MLPHandler"}, SPACE).fit(_subnets(5, 0), [1.0, 2.0, 3.0, 4.0, float("nan")])


@pytest.mark.parametrize("kernel", ["tps", "cubic", "linear", "gaussian"])
@pytest.mark.parametrize("count", [5, 60])
def test_radial_basis_functions_with_few_and_many_samples(kernel, count):
    predictor = MetricPredictor({"type": "RBFHandler", "kernel": kernel, "smoothing": 0.0}, SPACE)
    train = _subnets(count, 4)
    predictor.fit(train, [_score(one) for one in train])
    if count > 5:
        # Without smoothing it goes through its samples.
        np.testing.assert_allclose(predictor.predict_subnets(train), [_score(one) for one in train], atol=1e-3)


def test_a_search_by_predictions_measures_the_best_of_them():
    bounded = Bounded(SPACE)
    measured = []

    def evaluate(batch):
        measured.extend(batch)
        return [Scored(subnet=one, score=_score(one)) for one in batch]

    predictor = MetricPredictor({"type": "GaussProcessHandler"}, SPACE)
    outcome = run_predicted_search(
        EvolutionSearch(bounded, seed=1), evaluate, predictor, bounded, train_samples=60, verify=10, seed=1
    )
    assert len(measured) == len(outcome.scored) == 70
    assert not any(one.predicted for one in outcome.scored)
    chance = max(_score(one) for one in RandomSearch(bounded, seed=2, max_candidates=70, batch=70).ask())
    assert outcome.best().score > chance
    assert outcome.predictor["left_out"]["spearman"] > 0.7
    assert len(outcome.predictor["verified"]) == 10


def test_the_predecessors_names():
    for name in ("MetricPredictor", *HANDLERS):
        assert TASK_UTILS.get(f"mmrazor.{name}") is not None
