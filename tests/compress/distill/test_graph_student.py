"""A sliced network may be a graph, in which no module is called by its name: its logits are recorded all the same."""

from __future__ import annotations

import torch
from torch import nn

from razordeploy.compress.distill.algorithms.single_teacher import SingleTeacherDistill
from razordeploy.config.recipe import load_recipe


def _net(width):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def test_the_shipped_pipelines_distiller_on_a_graph():
    stage = next(s for s in load_recipe("pipelines/cifar10/prune_kd_qat.py").pipeline if s.name == "distil")
    x, targets = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    student = torch.export.export(_net(4).train(), (x,)).module()
    distilled = SingleTeacherDistill(
        architecture=student,
        teacher=_net(8).eval(),
        distiller=dict(stage.model["distiller"]),
        random_teacher=True,
    )
    distilled.train()
    losses = distilled.loss(x, targets)
    assert {"distill.loss_kl"} <= set(losses)
    with torch.no_grad():
        logits, taught = distilled.student(x), distilled.teacher(x)
        soft = (taught / 4).softmax(1)
        expected = nn.functional.kl_div((logits / 4).log_softmax(1), soft, reduction="batchmean") * 16
    torch.testing.assert_close(losses["distill.loss_kl"].detach(), expected)
    losses["distill.loss_kl"].backward()
    assert all(p.grad is not None for p in distilled.student.parameters())
    assert all(p.grad is None for p in distilled.teacher.parameters())
