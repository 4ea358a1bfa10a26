"""The head of a distilled vision transformer: which head answers when, and its names."""

from __future__ import annotations

import pytest
import torch

from razordeploy.compress.nas.supernets.heads import DeiTClsHead
from razordeploy.errors import ModelError


def head(**options):
    torch.manual_seed(0)
    made = DeiTClsHead(3, 4, **options)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


FEATS = ([torch.randn(2, 4, 1, 1), torch.randn(2, 4), torch.randn(2, 4)],)


def test_the_class_token_in_training_and_the_mean_afterwards():
    made = head()
    own = made.layers["head"](FEATS[-1][1])
    taught = made.layers["head_dist"](FEATS[-1][2])
    assert torch.equal(made.train()(FEATS), own)
    assert torch.allclose(made.eval()(FEATS), (own + taught) / 2)
    assert not torch.equal(own, taught)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Fail to import")  # mmcls' and mmcv's own
def test_names_are_those_of_mmcls():
    pytest.importorskip("mmcls", reason="needs mmcls")
    from mmcls.models.heads import DeiTClsHead as Theirs

    for options in ({}, {"hidden_dim": 6}):
        ours, theirs = head(**options), Theirs(num_classes=3, in_channels=4, **options)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        theirs.load_state_dict(ours.state_dict())
        assert torch.allclose(ours.eval()(FEATS), theirs.eval()(FEATS))


def test_a_new_head_says_nothing():
    assert not DeiTClsHead(3, 4).eval()(FEATS).any()


def test_a_loss_teaches_only_the_class_token():
    made = head().train()
    made.loss(FEATS, torch.tensor([0, 2]))["loss"].backward()
    assert made.layers["head"].weight.grad is not None and made.layers["head_dist"].weight.grad is None


def test_a_backbone_without_the_token():
    with pytest.raises(ModelError, match="expected \\(patch tokens, class token, distillation token\\)"):
        head()(([torch.randn(2, 4, 1, 1), torch.randn(2, 4)],))
