"""Classification heads and necks of supernets; any classifier of the OpenMMLab family can hold them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.nas.supernets.layers import follow
from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.linear import DynamicLinear
from razordeploy.subnet.mutables.base import BaseMutable


class _LinearHead(nn.Module):
    """Logits from one feature vector a sample, their loss and their prediction."""

    fc: nn.Module

    def __init__(self, loss: Mapping[str, Any] | None, topk: Sequence[int], cal_acc: bool) -> None:
        super().__init__()
        self.loss_module = build_loss(loss)
        self.topk, self.cal_acc = tuple(topk), cal_acc

    def pre_logits(self, feats: Any) -> Tensor:
        """The last of several features, (N, C)."""
        feature: Tensor = feats[-1] if isinstance(feats, tuple | list) else feats
        return feature.flatten(1)

    def forward(self, feats: Any) -> Tensor:
        """Features -> logits (N, classes)."""
        logits: Tensor = self.fc(self.pre_logits(feats))
        return logits

    def loss(self, feats: Any, data_samples: Any, **options: Any) -> dict[str, Tensor]:
        """The loss of the logits and, with ``cal_acc``, their accuracy in percent."""
        logits, target = self(feats), gather_targets(data_samples)
        losses: dict[str, Tensor] = {"loss": self.loss_module(logits, target, **options)}
        if self.cal_acc and target.dim() == 1:
            ranked = logits.detach().topk(max(self.topk)).indices
            for k in self.topk:
                losses[f"accuracy_top-{k}"] = (ranked[:, :k] == target[:, None]).any(1).float().mean() * 100
        return losses

    def predict(self, feats: Any, data_samples: Any = None) -> Any:
        """The data samples with ``pred_score`` and ``pred_label`` set; without them class indices (N,)."""
        scores = functional.softmax(self(feats), dim=1)
        if data_samples is None or isinstance(data_samples, Tensor):
            return scores.argmax(1)
        for sample, score in zip(data_samples, scores, strict=True):
            sample.set_pred_score(score.detach()).set_pred_label(score.argmax(0, keepdim=True).detach())
        return data_samples


class DynamicLinearClsHead(_LinearHead):
    """A linear classifier whose input width follows the backbone.

    Args:
        num_classes: classes.
        in_channels: the widest input.
        loss: a loss of mmcls; None: cross entropy.
        topk: ranks of the accuracy.
        cal_acc: report the accuracy in training.
        init_cfg: taken for mmengine's sake.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        loss: Mapping[str, Any] | None = None,
        topk: Sequence[int] = (1,),
        cal_acc: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(loss, topk, cal_acc)
        self.fc = DynamicLinear(in_channels, num_classes)

    def connect_with_backbone(self, mutable: BaseMutable) -> None:
        """Let the input follow the channels that the backbone ends with."""
        follow(self.fc, inputs=mutable)


class DartsSubnetClsHead(_LinearHead):
    """A linear classifier and, in training, an auxiliary one on the first of two features (DARTS, section 3.2).

    Args:
        num_classes: classes.
        in_channels: of the last feature.
        aux_in_channels: of the auxiliary feature.
        aux_loss: its loss, usually weighted 0.4.
        loss: as of ``DynamicLinearClsHead``, and so are ``topk``, ``cal_acc`` and ``init_cfg``.
        topk: see there.
        cal_acc: see there.
        init_cfg: see there.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        aux_in_channels: int,
        aux_loss: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        topk: Sequence[int] = (1,),
        cal_acc: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(loss, topk, cal_acc)
        self.fc = nn.Linear(in_channels, num_classes)
        self.aux_linear = nn.Linear(aux_in_channels, num_classes)
        self.aux_loss_module = build_loss(aux_loss)
        self.aux_weight = 0.4 if aux_loss is None else 1.0

    def loss(self, feats: Any, data_samples: Any, **options: Any) -> dict[str, Tensor]:
        """The losses of both classifiers.

        Raises:
            ModelError: there is no auxiliary feature.
        """
        if not isinstance(feats, tuple | list) or len(feats) < 2:
            raise ModelError(
                "DartsSubnetClsHead: expected an auxiliary feature and the last one in training",
                hint="give the DartsBackbone auxliary=True",
            )
        losses = super().loss(feats, data_samples, **options)
        logits = self.aux_linear(feats[0].flatten(1))
        losses["aux_loss"] = self.aux_weight * self.aux_loss_module(logits, gather_targets(data_samples))
        return losses


class DeiTClsHead(_LinearHead):
    """A head for the class token and one for the distillation token, whose mean is the answer.

    Training data-efficient image transformers (Touvron et al. 2021, arXiv 2012.12877), section 4. In training the
    answer is the class token's, which the labels teach; what the other head says is for a recorder, at
    ``layers.head_dist``. mmcls' head of this name warns that it cannot be trained.

    Args:
        num_classes: classes.
        in_channels: of both tokens.
        hidden_dim: of a layer before both heads; None: there is none.
        act_cfg: ``dict(type=...)``, an activation of ``torch.nn`` after that layer.
        loss: as of ``DynamicLinearClsHead``, and so are ``topk``, ``cal_acc`` and ``init_cfg``.
        topk: see there.
        cal_acc: see there.
        init_cfg: see there.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        hidden_dim: int | None = None,
        act_cfg: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        topk: Sequence[int] = (1,),
        cal_acc: bool = False,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(loss, topk, cal_acc)
        parts: dict[str, nn.Module] = {}
        if hidden_dim is not None:
            activation: type[nn.Module] = getattr(nn, str((act_cfg or {}).get("type", "Tanh")))
            parts |= {"pre_logits": nn.Linear(in_channels, hidden_dim), "act": activation()}
        for name in ("head", "head_dist"):
            linear = nn.Linear(hidden_dim or in_channels, num_classes)
            # As mmcls does: a new head says nothing.
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
            parts[name] = linear
        self.layers = nn.ModuleDict(parts)

    def tokens(self, feats: Any) -> tuple[Tensor, Tensor]:
        """Features of a backbone with a distillation token -> both tokens (N, C), before the heads.

        Raises:
            ModelError: the backbone has no such token.
        """
        last = feats[-1] if isinstance(feats, tuple | list) else feats
        if not isinstance(last, tuple | list) or len(last) != 3:
            raise ModelError(
                "DeiTClsHead: expected (patch tokens, class token, distillation token) from the backbone",
                hint="backbone=dict(type='DistilledVisionTransformer', ...)",
            )
        found: list[Tensor] = list(last[1:])
        if "act" in self.layers:
            found = [self.layers["act"](self.layers["pre_logits"](token)) for token in found]
        return found[0], found[1]

    def forward(self, feats: Any) -> Tensor:
        """Features -> logits (N, classes)."""
        class_token, distillation_token = self.tokens(feats)
        own: Tensor = self.layers["head"](class_token)
        taught: Tensor = self.layers["head_dist"](distillation_token)
        return own if self.training else (own + taught) / 2


class SqueezeMeanPoolingWithDropout(nn.Module):
    """The mean over all positions, and dropout.

    Args:
        drop_ratio: of the dropout.
    """

    def __init__(self, drop_ratio: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(drop_ratio)

    def forward(self, inputs: Any) -> Any:
        """(N, C, ...), or a tuple of such -> (N, C), or a tuple."""
        if isinstance(inputs, tuple):
            return tuple(self(part) for part in inputs)
        x = inputs.flatten(2).mean(2) if inputs.dim() > 2 else inputs
        return self.dropout(x)


def build_loss(config: Mapping[str, Any] | None) -> Any:
    """A loss ``(logits, targets) -> scalar`` of mmcls; None: cross entropy.

    Raises:
        MissingDependency: mmcls is not installed.
        RecipeError: it has no such loss.
    """
    if config is None:
        return nn.CrossEntropyLoss()
    from razordeploy.compress.algorithm.build import build_foreign

    keywords = {key: value for key, value in config.items() if key not in ("type", "_scope_")}
    name = str(config.get("type", "CrossEntropyLoss"))
    return build_foreign(name if "." in name else f"mmcls.{name}", keywords, "loss")


def gather_targets(data_samples: Any) -> Tensor:
    """Labels (N,), or scores (N, classes) where images were mixed, of OpenMMLab's samples; a tensor as it is.

    Raises:
        ModelError: a sample has neither.
    """
    if isinstance(data_samples, Tensor):
        return data_samples
    found = []
    for sample in data_samples or ():
        label = sample.gt_label
        if "score" in label:
            found.append(label.score)
        elif "label" in label:
            found.append(label.label.reshape(()))
        else:
            raise ModelError("expected samples with a label to train on, got one without")
    if not found:
        raise ModelError("expected labels to compute the loss of, got none")
    return torch.stack(found)


HEADS: dict[str, type[nn.Module]] = {
    "DartsSubnetClsHead": DartsSubnetClsHead,
    "DeiTClsHead": DeiTClsHead,
    "DynamicLinearClsHead": DynamicLinearClsHead,
    "SqueezeMeanPoolingWithDropout": SqueezeMeanPoolingWithDropout,
}
"""The heads and necks that a config may name."""
