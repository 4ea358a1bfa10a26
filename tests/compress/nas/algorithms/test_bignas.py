from __future__ import annotations

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import nn
from torch.nn import functional

from razordeploy.compress.nas.algorithms.bignas import BigNAS
from razordeploy.compress.nas.supernets.layers import DropPath
from razordeploy.compress.nas.train import train_supernet
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import RecipeError
from tests.compress.nas.nets import Elastic, batch

RECORD = {"out": {"type": "ModuleOutputs", "source": "fc2"}}
DISTILLER = {
    "teacher_recorders": RECORD,
    "student_recorders": RECORD,
    "distill_losses": {"loss_kl": {"type": "KLDivergence", "tau": 1}},
    "loss_forward_mappings": {
        "loss_kl": {
            "preds_S": {"recorder": "out", "from_student": True},
            "preds_T": {"recorder": "out", "from_student": False},
        }
    },
}


class Keep(torch.optim.SGD):
    """Takes no step, and keeps the gradients that it would have taken it by."""

    def step(self, closure=None):
        self.kept = [p.grad.clone() for group in self.param_groups for p in group["params"]]


def _bignas(dropout=0.0, **options):
    torch.manual_seed(0)
    options.setdefault("distiller", DISTILLER)
    algorithm = BigNAS(architecture=Elastic(dropout), **options)
    return algorithm, OptimWrapper(Keep(algorithm.architecture.parameters(), lr=0.1))


def _gradients_of_separate_passes(net, widths, distilled=True):
    """Each subnet on its own, sliced by hand, the largest one's logits as soft labels."""
    x, y = batch()
    total = [torch.zeros_like(p) for p in net.parameters()]
    teacher = None
    for width in widths:
        h = functional.gelu(functional.linear(x.flatten(1), net.fc1.weight[:width], net.fc1.bias[:width]))
        logits = functional.linear(h, net.fc2.weight[:, :width], net.fc2.bias)
        if teacher is None or not distilled:
            teacher, loss = logits.detach(), functional.cross_entropy(logits, y)
        else:
            soft = teacher.softmax(1)
            loss = (soft * (teacher.log_softmax(1) - logits.log_softmax(1))).sum(1).mean()
        for sum_, grad in zip(total, torch.autograd.grad(loss, list(net.parameters())), strict=True):
            sum_ += grad
    return total


@pytest.mark.parametrize("distilled", [True, False])
def test_the_step_is_the_sum_of_separate_passes(distilled, monkeypatch):
    algorithm, wrapper = _bignas(distiller=DISTILLER if distilled else None)
    drawn = iter([4, 6])
    monkeypatch.setattr(type(algorithm.mutator), "_sample", lambda self, name, members: next(drawn))
    log = algorithm.train_step(batch(), wrapper)
    expected = _gradients_of_separate_passes(algorithm.architecture, [8, 4, 6, 2], distilled)
    for ours, theirs in zip(wrapper.optimizer.kept, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    parts = {"random1", "random2", "min"}
    loss = "loss_kl" if distilled else "loss"
    assert set(log) == {"loss", "max.loss", *(f"{part}.{loss}" for part in parts)}
    assert float(log["loss"]) == pytest.approx(sum(float(v) for k, v in log.items() if k != "loss"), rel=1e-5)
    assert all(p.grad is None or not p.grad.any() for p in algorithm.parameters())


def test_recipes_with_accumulative_counts_take_the_same_step(monkeypatch):
    algorithm, wrapper = _bignas(strategy=("max", "min"))
    wrapper._accumulative_counts = 2
    algorithm.train_step(batch(), wrapper)
    expected = _gradients_of_separate_passes(algorithm.architecture, [8, 2])
    for ours, theirs in zip(wrapper.optimizer.kept, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_dropout_is_for_the_largest_subnet():
    algorithm, wrapper = _bignas(dropout=0.5)
    algorithm.architecture.fc2.register_forward_pre_hook(
        lambda module, args: seen.append(
            (algorithm.mutator.current_choices["width"], algorithm.architecture.dropout.training)
        )
    )
    seen = []
    algorithm.train().train_step(batch(), wrapper)
    assert [drops for _, drops in seen] == [True, False, False, False]
    assert seen[0][0] == 8
    assert seen[-1][0] == 2
    assert algorithm.architecture.dropout.training


@pytest.mark.parametrize(
    ("strategy", "kinds"),
    [
        (None, ("max", "random", "random", "min")),
        ("sandwish4", ("max", "random", "random", "min")),
        ("sandwich3", ("max", "random", "min")),
        (["max", "min"], ("max", "min")),
    ],
)
def test_strategies(strategy, kinds):
    assert _bignas(strategy=strategy)[0].sample_kinds == kinds


def test_bad_strategies():
    with pytest.raises(RecipeError, match="unknown strategy 'sandwitch4'.*"):
        _bignas(strategy="sandwitch4")
    with pytest.raises(RecipeError, match=r"begins with max, got \['min', 'max'\]"):
        _bignas(strategy=("min", "max"))
    assert _bignas(num_random_samples=0)[0].sample_kinds == ("max", "min")


def test_stochastic_depth_goes_to_the_stages_named():
    from razordeploy.compress.nas.supernets.digits import bignas_digits

    algorithm = BigNAS(architecture=bignas_digits(), drop_path_rate=0.3, backbone_dropout_stages=[2])
    rates = {
        name: {
            part.drop_prob
            for part in getattr(algorithm.architecture.backbone, name).modules()
            if isinstance(part, DropPath)
        }
        for name in ("layer1", "layer2", "layer3")
    }
    assert rates == {"layer1": {0.0}, "layer2": {0.3}, "layer3": {0.0}}
    x = torch.ones(64, 2, 1, 1)
    path = DropPath(0.25)
    torch.manual_seed(0)
    dropped = path(x)[:, 0, 0, 0]
    assert sorted(set(dropped.tolist())) == pytest.approx([0.0, 4 / 3])
    assert torch.equal(path.eval()(x), x)
    assert isinstance(path, nn.Module)


@pytest.mark.parametrize("name", ["bignas", "ofa"])
def test_the_shipped_recipes_train(name, tmp_path):
    options = {"train.epochs": "1", "train.batch_size": "512"}
    path = train_supernet(load_recipe(f"nas/digits/{name}_supernet.py", options), work_dir=tmp_path)
    assert path.name == "supernet.pth"
