"""BRECQ's weights against its equations, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from razordeploy.quantization.algorithms.fisher import fisher_weights, output_gradient
from razordeploy.quantization.algorithms.learned import BRECQ
from razordeploy.quantization.algorithms.reconstruction import Goal
from razordeploy.quantization.algorithms.walk import Walk
from tests.quantization.algorithms.conftest import draft_sqnr, images, make_draft


class Tail(nn.Module):
    """A hidden value with a shortcut around it, behind which two layers follow."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, outputs)
        self.skip = nn.Linear(6, 4)

    def forward(self, x):
        return self.last(torch.tanh(self.second(torch.relu(self.first(x)))) + self.skip(x))


def weights_at(model, x, name, draws=1):
    draft, work = make_draft(model, x, bits=4)
    walk, found = Walk(draft, work), []

    def after(node):
        if node.name == name:
            found.append(fisher_weights(walk, node, draws))

    walk.run(after=after)
    return found[0]


def hidden(model, z, x):
    """What follows the hidden value z, and the shortcut."""
    return model.last(torch.tanh(model.second(z)) + model.skip(x))


@pytest.mark.parametrize("outputs", (3, 1))
def test_weights_are_squared_gradients_of_the_drawn_loss(outputs):
    model, x = Tail(outputs), torch.randn(40, 6)
    found = weights_at(model, x, "relu")
    assert [w.shape for w in found] == [(32, 5), (8, 5)]
    double = Tail(outputs).double()
    double.load_state_dict({k: v.double() for k, v in model.state_dict().items()})
    generator, expected = torch.Generator().manual_seed(0), []
    for part in x.double().split(32):
        z = torch.relu(double.first(part)).detach().requires_grad_()
        y = hidden(double, z, part)
        if outputs > 1:  # L = -log p(label), the label drawn from p
            labels = torch.multinomial(y.detach().softmax(1), 1, generator=generator)
            loss = -y.log_softmax(1).gather(1, labels).sum()
        else:  # L = |y - t|^2 / 2 with t = y - e
            noise = 2 * torch.randint(0, 2, y.shape, generator=generator) - 1
            loss = ((y - (y - noise).detach()).square() / 2).sum()
        expected.append(torch.autograd.grad(loss, z)[0].square())
    expected = torch.cat(expected)
    torch.testing.assert_close(torch.cat(found).double(), expected / expected.mean(), rtol=1e-3, atol=1e-4)


def test_drawn_labels_give_the_fisher_information_on_average():
    """E[g g^T] = diag(p) - p p^T of a softmax, and the identity of a normal distribution."""
    y = torch.tensor([[1.0, 0.0, -2.0]], dtype=torch.float64)
    p = y.softmax(1)[0]
    many = output_gradient(y.repeat(40_000, 1), torch.Generator().manual_seed(1))
    torch.testing.assert_close(many.T @ many / len(many), torch.diag(p) - p[:, None] * p, atol=5e-3, rtol=0)
    signs = output_gradient(torch.zeros(40_000, 2, 1, dtype=torch.float64), torch.Generator().manual_seed(1))[..., 0]
    torch.testing.assert_close(signs.T @ signs / len(signs), torch.eye(2, dtype=torch.float64), atol=2e-2, rtol=0)


def test_the_objective_is_the_weighed_squared_error():
    z, wanted, w = (torch.randn(4, 3, 5, 5, dtype=torch.float64) for _ in range(3))
    w = w.square()
    goal = Goal(targets=[wanted], weights=[w])
    by_hand = (
        sum(
            float((w[n] * (z[n] - wanted[n]) ** 2).sum()) / 25
            for n in range(4)  # dz^T diag(g^2) dz, per place
        )
        / 4
    )
    assert float(goal.loss(z, 0)) == pytest.approx(by_hand, rel=1e-12)
    assert goal.error(z, 0) == pytest.approx(by_hand * 100, rel=1e-12)


def test_without_gradients_all_errors_count_alike():
    class Classes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, x):
            return self.fc(x).argmax(1)

    assert weights_at(Classes(), torch.randn(8, 6), "linear") is None


def test_coarse_weights_lose_less_and_what_nobody_reads_counts_nothing():
    torch.manual_seed(5)
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(512, 6)),
    )
    with torch.no_grad():
        model[5].weight.view(6, 8, 64)[:, :4] = 0
    x, fresh = images(96), images(64, seed=2)
    weights = torch.cat(weights_at(model, x, "relu_1", 8))
    assert not weights[:, :4].any() and weights[:, 4:].mean() > 1.5
    draft, work = make_draft(model, x, bits=2, per_channel=False)
    changed = draft.copied()
    BRECQ(steps=100, fisher=True).apply(changed, work)
    assert draft_sqnr(changed, model, fresh) > draft_sqnr(draft, model, fresh) + 3
