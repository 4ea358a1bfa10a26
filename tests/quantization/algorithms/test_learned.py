"""AdaRound, BRECQ, QDrop and LSQ on small networks with coarse weights: the error falls, and the integers survive."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.layers import layers, weight_points
from razordeploy.quantization.algorithms.learned import BRECQ, AdaRound, LSQFinetune, QDrop
from razordeploy.quantization.qparams import fake_quantize, quantize
from tests.quantization.algorithms.conftest import draft_sqnr, images, make_draft


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.conv2 = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.relu(self.stem(x))
        x = self.relu(self.conv2(self.relu(self.conv1(x))) + x)
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    ("algorithm", "gain_db"),
    (
        (AdaRound(steps=150), 3),
        (BRECQ(steps=150, fisher=False), 3),
        (BRECQ(steps=150), 2),  # what the outputs of a classifier say counts, not their squares
        (QDrop(steps=150), 2),
        (LSQFinetune(steps=150), 3),
    ),
)
def test_coarse_weights_lose_less(algorithm, gain_db):
    model, x = Residual(), images(128)
    draft, work = make_draft(model, x, bits=3)
    changed = draft.copied()
    algorithm.apply(changed, work)
    fresh = images(64, seed=2)
    assert draft_sqnr(changed, model, fresh) >= draft_sqnr(draft, model, fresh) + gain_db
    points = weight_points(changed.plan)
    for layer in layers(changed.captured):
        q = changed.params[points[layer.name].group]
        if not isinstance(algorithm, LSQFinetune):
            weight = changed.constant(layer.weight)
            assert torch.equal(fake_quantize(weight, q), weight), "learned integers are those that rounding gives"
    assert work.notes[-1].split(": ")[1].startswith("4 parts" if isinstance(algorithm, AdaRound) else "3 parts")


def test_learned_rounding_differs_from_the_nearest_but_by_one_step():
    model, x = nn.Linear(32, 8), torch.randn(256, 4) @ torch.randn(4, 32)
    draft, work = make_draft(model, x, bits=4)
    changed = draft.copied()
    AdaRound(steps=800).apply(changed, work)
    layer = next(layers(draft.captured))
    q = draft.params[weight_points(draft.plan)[layer.name].group]
    nearest = quantize(model.weight.detach(), q).int()
    learned = quantize(changed.constant(next(layers(changed.captured)).weight), q).int()
    moved = (nearest - learned).abs()
    assert moved.max() == 1 and moved.sum() > 10
    assert draft_sqnr(changed, model, x) > draft_sqnr(draft, model, x) + 3


def test_what_would_be_worse_is_not_taken():
    model, x = nn.Linear(8, 4), torch.randn(64, 8)
    draft, work = make_draft(model, x, bits=4)
    changed = draft.copied()
    LSQFinetune(steps=2, lr=1000.0).apply(changed, work)
    assert draft_sqnr(changed, model, x) == draft_sqnr(draft, model, x)


def test_bad_options_are_refused():
    for make in (lambda: AdaRound(steps=0), lambda: BRECQ(drop=1.0), lambda: AdaRound(lr=-1.0)):
        with pytest.raises(RecipeError):
            make()


@pytest.mark.parametrize(
    "algorithm", (AdaRound(steps=5), QDrop(steps=5), LSQFinetune(steps=5)), ids=lambda a: type(a).__name__
)
def test_parts_behind_the_time_limit_stay_as_they_were(algorithm):
    model, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(64, 8)
    draft, work = make_draft(model, x, bits=3)
    changed = draft.copied()
    algorithm.apply(changed, replace(work, until=0.0))
    assert not changed.changed(draft) and changed.params == draft.params
    assert "the time was up before" in work.notes[0]
