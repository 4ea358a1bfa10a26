"""Graph modules as classifiers: a sliced model may be one."""

from __future__ import annotations

import copy

import torch
from torch import fx

import razordeploy as rd
from razordeploy.compress.algorithm.plain import as_classifier, as_plain
from razordeploy.models.cifar import resnet20


def test_a_graph_module_is_trained_and_copied():
    torch.manual_seed(0)
    model = rd.prune(resnet20(), example_inputs=torch.randn(2, 3, 8, 8), choice=0.75)
    assert isinstance(model, fx.GraphModule)  # its shortcuts fix widths
    model.train()
    x = torch.randn(3, 3, 8, 8)
    classifier = as_classifier(model)
    assert classifier.training
    other = copy.deepcopy(classifier)
    loss = other(x, torch.tensor([1, 2, 3]), mode="loss")["loss"]
    loss.backward()
    assert all(p.grad is not None for p in other.parameters())
    assert all(p.grad is None for p in model.parameters())
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    plain = as_plain(other).eval()
    model.eval()
    assert torch.equal(plain(x), model(x))
    assert plain.conv1.weight is not model.conv1.weight
