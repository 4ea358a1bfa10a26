"""Models of every method that tools/bench/distill.py compares, for two ``resnet8`` of different width.

Features are those of the three residual blocks; a block calls its ReLU twice, and the second call is its output.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.data.digits import Digits
from razordeploy.models.digits import ResNet8

Config = dict[str, Any]
TRAINING_IMAGES = 1442


class Position(nn.Module):
    """Images (N, C, H, W) -> which of the training images each is, int64 (N,)."""

    def __init__(self) -> None:
        super().__init__()
        source = Digits("train")
        known = torch.stack([source[i][0].flatten() for i in range(len(source))])
        self.register_buffer("known", known, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Nearest of all training images, which is the image itself."""
        known: Any = self.known
        return torch.cdist(x.flatten(1), known).argmin(1)


class Numbered(ResNet8):
    """A student whose recorders can tell which images it was given: contrast needs to know."""

    def __init__(self, width: int) -> None:
        super().__init__(width=width)
        self.position = Position()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> logits (N, 10)."""
        if self.training:
            self.position(x)
        return super().forward(x)


class Widened(ResNet8):
    """A student whose maps are brought to the width of the teacher's, of 4 times as many channels, for FBKD."""

    def __init__(self, width: int) -> None:
        super().__init__(width=width)
        self.wider = nn.ModuleDict({str(i): nn.Conv2d(width * 2 ** (i - 1), width * 2 ** (i + 1), 1) for i in (2, 3)})

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> logits (N, 10)."""
        x = self.relu(self.bn1(self.conv1(x)))
        for i, layer in enumerate((self.layer1, self.layer2, self.layer3), 1):
            x = layer(x)
            if self.training and i > 1:
                self.wider[str(i)](x)
        return self.linear(self.pool(x).flatten(1))


class TwoHeads(ResNet8):
    """A student with a head for the labels and one for the teacher's class, whose mean it answers with, as in DeiT."""

    def __init__(self, width: int) -> None:
        super().__init__(width=width)
        self.linear_dist = nn.Linear(self.linear.in_features, self.linear.out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 8, 8) -> logits (N, 10): those of the labels' head in training."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.pool(self.layer3(self.layer2(self.layer1(x)))).flatten(1)
        own, taught = self.linear(x), self.linear_dist(x)
        return own if self.training else (own + taught) / 2


# Method -> its student, where that is not the plain one.
STUDENTS = {"CRD": "distill_methods:Numbered", "DeiT": "distill_methods:TwoHeads", "FBKD": "distill_methods:Widened"}
FBKD_WEIGHT = 30.0


def _outputs(source: str) -> Config:
    return {"type": "ModuleOutputs", "source": source}


def _student(recorder: str, **more: Any) -> Config:
    return {"recorder": recorder, "from_student": True, **more}


def _teacher(recorder: str, **more: Any) -> Config:
    return {"recorder": recorder, "from_student": False, **more}


_LOGITS = {"fc": _outputs("linear")}
_PAIR = {"preds_S": _student("fc"), "preds_T": _teacher("fc")}


def _of_logits(loss: Config, mapping: Config | None = None) -> Config:
    return {
        "student_recorders": {**_LOGITS, "labels": {"type": "ModuleInputs", "source": ""}},
        "teacher_recorders": _LOGITS,
        "distill_losses": {"loss": loss},
        "loss_forward_mappings": {"loss": mapping or _PAIR},
    }


def _of_blocks(
    blocks: tuple[int, ...], loss: Any, arguments: tuple[str, str], connector: Any = None, record: str = "outputs"
) -> Config:
    """One loss per block; ``loss`` and ``connector`` are called with its number."""
    kind = {"outputs": _outputs, "inputs": lambda source: {"type": "ModuleInputs", "source": source}}[record]
    recorders = {f"b{i}": kind(f"layer{i}.relu") for i in blocks}
    item = {"data_idx": 0} if record == "inputs" else {}
    through = [{"connector": f"c{i}"} if connector else {} for i in blocks]
    student, teacher = arguments
    return {
        "student_recorders": recorders,
        "teacher_recorders": recorders,
        "connectors": {f"c{i}": connector(i) for i in blocks} if connector else {},
        "distill_losses": {f"loss_{i}": loss(i) for i in blocks},
        "loss_forward_mappings": {
            f"loss_{i}": {
                student: _student(f"b{i}", record_idx=1, **item, **more),
                teacher: _teacher(f"b{i}", record_idx=1, **item),
            }
            for i, more in zip(blocks, through, strict=True)
        },
    }


def distillers(student: int, teacher: int) -> dict[str, Config]:
    """Name -> distiller between one student and one teacher.

    Args:
        student: width of the student's stem.
        teacher: width of the teacher's.
    """
    narrow, wide = ({i: width * 2 ** (i - 1) for i in (1, 2, 3)} for width in (student, teacher))

    def regressor(i: int, **more: Any) -> Config:
        return {"type": "ConvModuleConnector", "in_channel": narrow[i], "out_channel": wide[i], **more}

    def plain(i: int) -> Config:
        return regressor(i, norm_cfg={"type": "BN"}, act_cfg=None)

    hint = ("s_feature", "t_feature")
    factor = {
        "student_recorders": {"b3": _outputs("layer3.relu")},
        "teacher_recorders": {"b3": _outputs("layer3.relu")},
        "connectors": {
            "s": {"type": "Translator", "in_channel": narrow[3], "out_channel": wide[3] // 2},
            "t": {
                "type": "Paraphraser",
                "in_channel": wide[3],
                "out_channel": wide[3] // 2,
                "pretrain_criterion": {"type": "L1Loss"},
            },
        },
        "distill_losses": {"loss": {"type": "FTLoss", "loss_weight": 50.0}},
        "loss_forward_mappings": {
            "loss": {
                "s_feature": _student("b3", record_idx=1, connector="s"),
                "t_feature": _teacher("b3", record_idx=1, connector="t"),
            }
        },
    }
    pool = {"student_recorders": {"pool": _outputs("pool")}, "teacher_recorders": {"pool": _outputs("pool")}}
    relation = {"preds_S": _student("pool"), "preds_T": _teacher("pool")}
    rkd = {
        **pool,
        "distill_losses": {"loss_d": {"type": "DistanceWiseRKD"}, "loss_a": {"type": "AngleWiseRKD"}},
        "loss_forward_mappings": {"loss_d": relation, "loss_a": relation},
    }
    labels = {"gt_labels": _student("labels", data_idx=1)}
    heads = {"student_recorders": {"fc": _outputs("linear_dist")}, "teacher_recorders": _LOGITS}
    contrast = {
        "student_recorders": {**pool["student_recorders"], "position": _outputs("position")},
        "teacher_recorders": pool["teacher_recorders"],
        "connectors": {
            "s": {"type": "CRDConnector", "dim_in": narrow[3], "dim_out": 64},
            "t": {"type": "CRDConnector", "dim_in": wide[3], "dim_out": 64},
        },
        "distill_losses": {
            "loss": {"type": "CRDLoss", "loss_weight": 0.8, "sample_n": TRAINING_IMAGES, "neg_num": 512, "dim_out": 64}
        },
        "loss_forward_mappings": {
            "loss": {
                "s_feats": _student("pool", connector="s"),
                "t_feats": _teacher("pool", connector="t"),
                "data_samples": _student("position"),
            }
        },
    }
    return {
        "KD": _of_logits({"type": "KLDivergence", "tau": 4, "loss_weight": 16}),
        "DKD": _of_logits({"type": "DKDLoss", "tau": 4, "beta": 1, "loss_weight": 16}, {**_PAIR, **labels}),
        "DIST": _of_logits(
            {"type": "DISTLoss", "tau": 2, "loss_weight": 4},
            {"logits_S": _student("fc"), "logits_T": _teacher("fc")},
        ),
        "WSLD": _of_logits(
            {"type": "WSLD", "tau": 2, "loss_weight": 2.5},
            {"student": _student("fc"), "teacher": _teacher("fc"), **labels},
        ),
        "hard labels": _of_logits({"type": "CrossEntropyLoss"}),
        "DeiT": {
            **heads,
            "distill_losses": {"loss": {"type": "CrossEntropyLoss"}},
            "loss_forward_mappings": {"loss": _PAIR},
        },
        "CRD": contrast,
        "FBKD": _fbkd(wide),
        "FitNets": _of_blocks((2, 3), lambda i: {"type": "L2Loss", "loss_weight": 10}, hint, plain),
        "AT": _of_blocks((1, 2, 3), lambda i: {"type": "ATLoss", "loss_weight": 2}, hint),
        "AB": _of_blocks(
            (1, 2, 3),
            lambda i: {"type": "ABLoss", "loss_weight": 0.01 * 2.0 ** (i - 3)},
            hint,
            plain,
            "inputs",
        ),
        "FT": factor,
        "RKD": rkd,
        "CWD": _of_blocks(
            (2, 3),
            lambda i: {"type": "ChannelWiseDivergence", "tau": 1, "loss_weight": 0.1},
            ("preds_S", "preds_T"),
            plain,
        ),
        "PKD": _of_blocks((2, 3), lambda i: {"type": "PKDLoss", "loss_weight": 6}, ("preds_S", "preds_T"), plain),
        "MGD": _of_blocks(
            (3,),
            lambda i: {"type": "MGDLoss", "alpha_mgd": 7e-3},
            ("preds_S", "preds_T"),
            lambda i: {
                "type": "MGDConnector",
                "student_channels": narrow[i],
                "teacher_channels": wide[i],
                "lambda_mgd": 0.15,
                "mask_on_channel": True,
            },
        ),
    }


def _fbkd(wide: dict[int, int]) -> Config:
    """Made for pyramids of detectors; here on the maps of two blocks, the student's brought to the teacher's width."""
    blocks = (2, 3)
    return {
        "student_recorders": {f"b{i}": _outputs(f"wider.{i}") for i in blocks},
        "teacher_recorders": {f"b{i}": _outputs(f"layer{i}.relu") for i in blocks},
        "connectors": {
            **{f"s{i}": {"type": "FBKDStudentConnector", "in_channels": wide[i]} for i in blocks},
            **{f"t{i}": {"type": "FBKDTeacherConnector", "in_channels": wide[i]} for i in blocks},
        },
        "distill_losses": {f"loss_{i}": {"type": "FBKDLoss", "loss_weight": FBKD_WEIGHT} for i in blocks},
        "loss_forward_mappings": {
            f"loss_{i}": {
                "s_input": _student(f"b{i}", connector=f"s{i}"),
                "t_input": _teacher(f"b{i}", record_idx=1, connector=f"t{i}"),
            }
            for i in blocks
        },
    }


def _ofd(narrow: dict[int, int], wide: dict[int, int]) -> Config:
    """Overhaul: what the last ReLU of a block is given, above the margin of the batch norm in front of the sum."""
    config = _of_blocks(
        (1, 2, 3),
        lambda i: {"type": "OFDLoss", "loss_weight": 2.0 ** (i - 3)},
        ("s_feature", "t_feature"),
        lambda i: {
            "type": "ConvModuleConnector",
            "in_channel": narrow[i],
            "out_channel": wide[i],
            "norm_cfg": {"type": "BN"},
            "act_cfg": None,
        },
        "inputs",
    )
    for i in (1, 2, 3):
        config["connectors"][f"t{i}"] = {"type": "OFDTeacherConnector", "norm": f"layer{i}.bn2"}
        config["loss_forward_mappings"][f"loss_{i}"]["t_feature"]["connector"] = f"t{i}"
    return {"type": "OFDDistiller", **config}


def _byot(narrow: dict[int, int]) -> Config:
    """Exits after the first two blocks learn from the labels and from the deepest one."""
    exits = {1: 2, 2: 1}
    label = _teacher("labels", data_idx=1)

    def of_exit(i: int, item: int) -> Config:
        return _student(f"b{i}", record_idx=1, connector=f"c{i}", connector_idx=item)

    losses, mappings = {}, {}
    for i in exits:
        losses[f"loss_label_{i}"] = {"type": "mmcls.CrossEntropyLoss", "loss_weight": 0.7}
        mappings[f"loss_label_{i}"] = {"cls_score": of_exit(i, 1), "label": label}
        losses[f"loss_soft_{i}"] = {"type": "KDSoftCELoss", "tau": 3, "loss_weight": 0.3}
        mappings[f"loss_soft_{i}"] = {"preds_S": of_exit(i, 1), "preds_T": _teacher("fc")}
    return {
        "type": "BYOTDistiller",
        "student_recorders": {f"b{i}": _outputs(f"layer{i}.relu") for i in exits},
        "teacher_recorders": {"fc": _outputs("linear"), "labels": {"type": "ModuleInputs", "source": ""}},
        "connectors": {
            f"c{i}": {
                "type": "BYOTConnector",
                "in_channel": narrow[i],
                "out_channel": narrow[3],
                "num_classes": 10,
                "expansion": 1,
                "pool_size": 2,
            }
            for i in exits
        },
        "distill_losses": losses,
        "loss_forward_mappings": mappings,
    }


def methods(student: int, teacher: int, checkpoints: list[str]) -> dict[str, Config]:
    """Name -> the ``model`` section of its recipe.

    Args:
        student: width of the student's stem.
        teacher: width of the teachers'.
        checkpoints: weights of the teachers; methods of one take the first.
    """
    narrow, wide = ({i: width * 2 ** (i - 1) for i in (1, 2, 3)} for width in (student, teacher))
    factory = "razordeploy.models.digits:resnet8"
    architecture = {"type": factory, "width": student}
    learned = {"type": factory, "width": teacher}
    single = {"architecture": architecture, "teacher": learned, "teacher_ckpt": checkpoints[0]}
    found = {
        name: {"type": "SingleTeacherDistill", **single, "distiller": distiller}
        for name, distiller in distillers(student, teacher).items()
    }
    for name, kind in STUDENTS.items():
        found[name]["architecture"] = {"type": kind, "width": student}
    found["OFD"] = {"type": "OverhaulFeatureDistillation", **single, "distiller": _ofd(narrow, wide)}
    found["BYOT"] = {"type": "SelfDistill", "architecture": architecture, "distiller": _byot(narrow)}
    found["ensemble"] = {
        "type": "MultiTeacherDistill",
        "architecture": architecture,
        "teachers": {f"t{i}": {"build_cfg": learned, "ckpt_path": path} for i, path in enumerate(checkpoints)},
        "distiller": {
            "student_recorders": _LOGITS,
            "teacher_recorders": {f"t{i}": _outputs(f"t{i}.linear") for i in range(len(checkpoints))},
            "distill_losses": {"loss": {"type": "MultiTeacherSoftCELoss", "tau": 4, "loss_weight": 16}},
            "loss_forward_mappings": {
                "loss": {"preds_S": _student("fc"), "preds_T": [_teacher(f"t{i}") for i in range(len(checkpoints))]}
            },
        },
    }
    found["MEAL"] = {
        **found["ensemble"],
        "selection": "random",
        "calculate_student_loss": False,
        "distiller": {
            "student_recorders": _LOGITS,
            "teacher_recorders": _LOGITS,
            "distill_losses": {
                "loss_similarity": {"type": "MEALLoss", "similarity": "ce"},
                "loss_adv": {"type": "DiscriminatorLoss", "channels": 10, "grad_reverse": True},
            },
            "loss_forward_mappings": {"loss_similarity": _PAIR, "loss_adv": _PAIR},
        },
    }
    return found


def data_free(student: int, teacher: int, checkpoint: str) -> dict[str, Config]:
    """Name -> the ``model`` section of a recipe that sees no image of the training set.

    Args:
        student: width of the student's stem.
        teacher: width of the teacher's.
        checkpoint: weights of the teacher.
    """
    factory = "razordeploy.models.digits:resnet8"
    architecture = {"type": factory, "width": student}
    fc = {"t_fc": _outputs("t.linear")}
    both = {"student_recorders": _LOGITS, "teacher_recorders": fc}
    pair = {"preds_S": _student("fc"), "preds_T": _teacher("t_fc")}
    hint = {"s_feature": _student("fc"), "t_feature": _teacher("t_fc")}
    shared = {
        "architecture": architecture,
        "teachers": {"t": {"build_cfg": {"type": factory, "width": teacher}, "ckpt_path": checkpoint}},
    }

    def of(loss: Config, mapping: Config) -> Config:
        return {**both, "distill_losses": {"loss": loss}, "loss_forward_mappings": {"loss": mapping}}

    def generator(kind: str, latent: int) -> Config:
        return {"type": kind, "img_size": 8, "latent_dim": latent, "hidden_channels": 32, "channels": 1}

    satisfied = {
        "teacher_recorders": {**fc, "t_pool": _outputs("t.pool")},
        "distill_losses": {
            "loss_oh": {"type": "OnehotLikeLoss", "loss_weight": 0.05},
            "loss_ie": {"type": "InformationEntropyLoss", "loss_weight": 5},
            "loss_ac": {"type": "ActivationLoss", "loss_weight": 0.01},
        },
        "loss_forward_mappings": {
            "loss_oh": {"preds_T": _teacher("t_fc")},
            "loss_ie": {"preds_T": _teacher("t_fc")},
            "loss_ac": {"feat_T": _teacher("t_pool")},
        },
    }
    attention = {f"s{i}": _outputs(f"layer{i}.relu") for i in (1, 2, 3)}
    zskt = of({"type": "KLDivergence", "reduction": "mean", "loss_weight": 10.0}, pair)
    zskt["student_recorders"] = {**_LOGITS, **attention}
    zskt["teacher_recorders"] = {**fc, **{f"s{i}": _outputs(f"t.layer{i}.relu") for i in (1, 2, 3)}}
    for i in (1, 2, 3):
        zskt["distill_losses"][f"loss_s{i}"] = {"type": "ATLoss", "loss_weight": 25.0}
        zskt["loss_forward_mappings"][f"loss_s{i}"] = {
            "s_feature": _student(f"s{i}", record_idx=1),
            "t_feature": _teacher(f"s{i}", record_idx=1),
        }
    against = {"type": "KLDivergence", "reduction": "mean", "loss_weight": -10.0, "teacher_detach": False}
    return {
        "DAFL": {
            "type": "DAFLDataFreeDistillation",
            **shared,
            "generator": generator("DAFLGenerator", 64),
            "distiller": of({"type": "KLDivergence", "tau": 1}, pair),
            "generator_distiller": satisfied,
        },
        "DFAD": {
            "type": "DataFreeDistillation",
            **shared,
            "generator": {**generator("DAFLGenerator", 64), "bn_eps": 1e-5},
            "distiller": of({"type": "L1Loss"}, hint),
            "generator_distiller": of({"type": "L1Loss", "loss_weight": -1.0}, hint),
            "student_iter": 5,
            "student_train_first": True,
        },
        "ZSKT": {
            "type": "DataFreeDistillation",
            **shared,
            "generator": generator("ZSKTGenerator", 64),
            "distiller": zskt,
            "generator_distiller": of(against, pair),
            "student_iter": 10,
        },
    }
