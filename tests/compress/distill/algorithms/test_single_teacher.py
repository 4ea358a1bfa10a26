"""One teacher: what is trained, what stays, what is left behind."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn import functional

from razordeploy.compress.algorithm.build import build
from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.compress.distill.algorithms.single_teacher import (
    FpnTeacherDistill,
    OverhaulFeatureDistillation,
    SingleTeacherDistill,
)
from razordeploy.compress.distill.algorithms.table import ALGORITHMS
from razordeploy.errors import CheckpointError, ModelError, RecipeError
from razordeploy.train.classifier import ShiftAndFlip
from tests.compress.distill import toy_module
from tests.compress.distill.tiny import Tiny, images, kd, outputs, targets, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def made(**options: Any) -> SingleTeacherDistill:
    given = {"architecture": tiny(0), "teacher": tiny(1, width=8, dropout=0.5), "distiller": kd(), **options}
    return SingleTeacherDistill(data_preprocessor=ShiftAndFlip(), **given)


def step(model: Any, lr: float = 0.1) -> dict[str, Tensor]:
    optimizer = OptimWrapper(torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr))
    return model.train().train_step((images(), targets()), optimizer)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_losses_are_the_students_own_and_those_of_the_distiller():
    model = made().train()
    student, teacher = tiny(0), tiny(1, width=8).eval()
    losses = model(images(), targets(), mode="loss")
    assert set(losses) == {"student.loss", "distill.loss_kl"}
    logits = student(images())
    torch.testing.assert_close(losses["student.loss"], functional.cross_entropy(logits, targets()))
    soft = functional.softmax(teacher(images()) / 4, 1)
    expected = 16 * functional.kl_div(functional.log_softmax(logits / 4, 1), soft, reduction="batchmean")
    torch.testing.assert_close(losses["distill.loss_kl"], expected)


def test_a_step_trains_the_student_and_leaves_the_teacher_untouched():
    model = made()
    student, teacher = state(model.student), state(model.teacher)
    log = step(model)
    torch.testing.assert_close(log["loss"], log["student.loss"] + log["distill.loss_kl"])
    assert not same(student, state(model.student))
    # Weights and, unlike the predecessor's, nothing of batch norm or dropout either.
    assert same(teacher, state(model.teacher))
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert model.training and model.student.training
    assert not any(module.training for module in model.teacher.modules())


def test_a_teacher_that_is_trained():
    model = made(teacher_trainable=True)
    before = state(model.teacher)
    log = step(model)
    assert "teacher.loss" in log and model.teacher.dropout.training
    assert not model.teacher.bn1.training
    after = state(model.teacher)
    assert not torch.equal(before["fc.weight"], after["fc.weight"])
    assert torch.equal(before["bn1.running_mean"], after["bn1.running_mean"])
    assert made(teacher_trainable=True, teacher_norm_eval=False).train().teacher.bn1.training


def test_the_student_is_the_plain_model_again():
    model = made()
    step(model)
    plain = tiny(5)
    plain.load_state_dict(model.student.state_dict(), strict=True)
    out = model.eval()(images())
    assert torch.equal(out, plain.eval()(images()))
    assert torch.equal(model(images(), mode="predict"), out.argmax(1))
    assert type(as_plain(model.student)) is Tiny and torch.equal(model.student(images()), out)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_recording_does_not_change_what_the_models_compute():
    model = made().train()
    alone = as_plain(copy.deepcopy(model.student))
    for _ in range(3):
        model(images(), targets(), mode="loss")
        alone.train()(images())
    assert same(state(alone), state(model.student))


def test_nothing_grows_over_steps_and_the_graph_is_freed():
    model = made()
    kept: list[weakref.ref[Tensor]] = []
    model.student.fc.register_forward_hook(lambda m, i, out: kept.append(weakref.ref(out)))
    optimizer = OptimWrapper(torch.optim.SGD(model.student.parameters(), lr=0.01))
    gc.collect()
    before = None
    for index in range(100):
        model.train_step((images(), targets()), optimizer)
        if index in (20, 99):
            gc.collect()
            count = sum(issubclass(type(x), Tensor) for x in gc.get_objects())
            assert before is None or count <= before
            before = count
    assert [ref for ref in kept if ref() is not None] == []


def test_the_model_is_copied_and_pickled_whole():
    model = made()
    other = copy.deepcopy(model)
    step(other)
    assert not same(state(other.student), state(model.student))
    losses = [m(images(), targets(), mode="loss")["distill.loss_kl"].item() for m in (model.eval(), other.eval())]
    assert losses[0] != losses[1]
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(images()), model(images())) and type(as_plain(again.student)) is Tiny


def test_stages_train_what_they_are_told():
    connectors = made(student_trainable=False, calculate_student_loss=False, distiller=feature_distiller())
    before = state(connectors.student)
    log = step(connectors)
    assert set(log) == {"loss", "distill.loss_feat"}
    assert same(before, state(connectors.student)) and not connectors.student.training
    own = made(calculate_student_loss=False)
    assert set(step(own)) == {"loss", "distill.loss_kl"} and own.student.fc.weight.requires_grad


def feature_distiller() -> dict[str, Any]:
    return {
        "student_recorders": {"feat": outputs("bn2")},
        "teacher_recorders": {"feat": outputs("bn2")},
        "connectors": {"adapt": {"type": "ConvModuleConnector", "in_channel": 8, "out_channel": 16}},
        "distill_losses": {"loss_feat": {"type": "L2Loss"}},
        "loss_forward_mappings": {
            "loss_feat": {
                "s_feature": {"recorder": "feat", "from_student": True, "connector": "adapt"},
                "t_feature": {"recorder": "feat", "from_student": False},
            }
        },
    }


def test_in_place_activations_do_not_overwrite_records():
    student, teacher = tiny(0, inplace=True), tiny(1, width=8, inplace=True)
    model = made(architecture=student, teacher=teacher, distiller=feature_distiller())
    expected = made(architecture=tiny(0), teacher=tiny(1, width=8), distiller=feature_distiller())
    expected.distiller.load_state_dict(model.distiller.state_dict())
    for each in (model, expected):
        each.train()
    found, wanted = (m(images(), targets(), mode="loss")["distill.loss_feat"] for m in (model, expected))
    assert torch.equal(found, wanted)
    left = made(teacher=tiny(1, width=8, inplace=True), distiller=feature_distiller(), teacher_module_inplace=True)
    with pytest.raises(ModelError, match="loss 'loss_feat': what module 'bn2' gave was changed in place"):
        left.train()(images(), targets(), mode="loss")


def test_stopped_distillation_leaves_the_student_alone():
    model = made().train()
    model.distillation_stopped = True
    model.teacher.forward = None
    assert set(model(images(), targets(), mode="loss")) == {"student.loss"}
    model.calculate_student_loss = False
    with pytest.raises(ModelError, match="the student has no losses of its own"):
        model(images(), targets(), mode="loss")


def test_deliveries_give_the_student_what_the_teacher_drew():
    class Drawing(Tiny):
        def forward(self, x: Tensor) -> Tensor:
            self.drawn = toy_module.toy_func()
            return super().forward(x)

    def drawing(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return Drawing()

    path = "tests.compress.distill.toy_module.toy_func"
    config = {**kd(), "distill_deliveries": {"d": {"type": "FunctionOutputs", "func_path": path, "max_keep_data": 1}}}
    model = made(architecture=drawing(0), teacher=drawing(1), distiller=config).train()
    before = toy_module.toy_func
    for _ in range(3):
        model(images(), targets(), mode="loss")
        assert model.student.drawn == model.teacher.drawn
    assert toy_module.toy_func is before


def test_the_teacher_is_not_taken_at_random(tmp_path):
    factory = {"type": "tests.compress.distill.tiny:tiny", "seed": 1, "width": 8}
    with pytest.raises(RecipeError, match="the teacher has no weights: .*random_teacher=True"):
        made(teacher=factory)
    assert made(teacher=factory, random_teacher=True).teacher.fc.out_features == 3
    assert made(teacher=factory, init_cfg={"type": "Pretrained", "checkpoint": "x"})
    with pytest.raises(CheckpointError, match=r"no checkpoint '.*teacher\.pth'"):
        made(teacher=factory, teacher_ckpt=str(tmp_path / "teacher.pth"))
    weights = tiny(7, width=8)
    torch.save({"state_dict": {f"net.{k}": v for k, v in weights.state_dict().items()}}, tmp_path / "teacher.pth")
    with pytest.raises(CheckpointError, match=r"does not match the model.*'\^net"):
        made(teacher=factory, teacher_ckpt=str(tmp_path / "teacher.pth"))
    model = made(teacher=factory, teacher_ckpt=str(tmp_path / "teacher.pth"), teacher_key_mapping={r"^net\.": ""})
    assert same(state(model.teacher), state(weights))
    model.init_weights()
    assert same(state(model.teacher), state(weights))


def test_names_that_the_models_have_not():
    config = kd()
    config["teacher_recorders"]["fc"]["source"] = "head.fc"
    with pytest.raises(ModelError, match="no module 'head.fc' in Tiny; did you mean|the model' has"):
        made(distiller=config)
    config = kd()
    config["student_recorders"]["fc"]["source"] = "fcc"
    with pytest.raises(ModelError, match="no module 'fcc' in Tiny"):
        made(distiller=config)


def test_the_first_batch_shows_what_is_wrong():
    made().train().check_batch((images(), targets()))
    config = kd()
    config["student_recorders"]["fc"] = {
        "type": "FunctionOutputs",
        "source": "tests.compress.distill.toy_module.toy_func",
    }
    with pytest.raises(ModelError, match=r"function '.*toy_func' was never called in this forward pass"):
        made(distiller=config).train().check_batch((images(), targets()))
    statistic = made(calculate_student_loss=False)
    distiller = statistic.distiller
    distiller.distill_losses["kl"] = distiller.distill_losses.pop("loss_kl")
    distiller.mappings["kl"] = distiller.mappings.pop("loss_kl")
    with pytest.raises(ModelError, match=r"nothing to minimise: none of loss, distill\.kl depends .* 'loss' in their"):
        statistic.train().check_batch((images(), targets()))
    with pytest.raises(ModelError, match=r"'student\.loss' is nan in the first batch"):
        made().train().check_batch((images() * float("nan"), targets()))


def test_fpn_teachers_run_backbone_and_neck_only():
    class Detector(Tiny):
        def extract_feat(self, x: Tensor) -> Tensor:
            return self.relu2(self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))

    torch.manual_seed(1)
    teacher = Detector(width=8)
    calls: list[int] = []
    teacher.fc.register_forward_hook(lambda *_: calls.append(1))
    given = {"architecture": tiny(0), "distiller": feature_distiller(), "data_preprocessor": ShiftAndFlip()}
    model = FpnTeacherDistill(teacher=teacher, **given)
    assert set(step(model)) == {"loss", "student.loss", "distill.loss_feat"} and calls == []
    plain = FpnTeacherDistill(teacher=tiny(1, width=8), **given)
    with pytest.raises(ModelError, match="Tiny has no extract_feat; use SingleTeacherDistill"):
        step(plain)


def ofd_distiller() -> dict[str, Any]:
    config = feature_distiller()
    config["type"] = "OFDDistiller"
    config["connectors"]["adapt"].update(norm_cfg={"type": "BN"}, act_cfg=None)
    config["connectors"]["margin"] = {"type": "OFDTeacherConnector"}
    config["distill_losses"] = {"loss_feat": {"type": "OFDLoss"}}
    config["loss_forward_mappings"]["loss_feat"]["t_feature"]["connector"] = "margin"
    return config


def test_overhaul_takes_margins_from_the_loaded_teacher(tmp_path):
    weights = tiny(7, width=8)
    torch.save(weights.state_dict(), tmp_path / "teacher.pth")
    given = {"architecture": tiny(0), "data_preprocessor": ShiftAndFlip()}
    teacher = {"type": "tests.compress.distill.tiny:tiny", "width": 8}
    model = OverhaulFeatureDistillation(
        distiller=ofd_distiller(), teacher=teacher, teacher_ckpt=str(tmp_path / "teacher.pth"), **given
    )
    margin = model.distiller.connectors["margin"].margin.flatten()
    deviation, mean = weights.bn2.weight.detach().abs(), weights.bn2.bias.detach()
    draws = mean + deviation * torch.randn(100_000, 16)
    expected = torch.stack([column[column < 0].mean() for column in draws.t()])
    torch.testing.assert_close(margin, expected, rtol=0.05, atol=0.02)
    assert set(step(model)) == {"loss", "student.loss", "distill.loss_feat"}
    with pytest.raises(RecipeError, match="expected an OFDDistiller, got ConfigurableDistiller"):
        OverhaulFeatureDistillation(distiller=kd(), teacher=tiny(1), **given)
    config = ofd_distiller()
    del config["loss_forward_mappings"]["loss_feat"]["t_feature"]["connector"]
    with pytest.raises(RecipeError, match="expected the teacher's feature through an OFDTeacherConnector"):
        OverhaulFeatureDistillation(distiller=config, teacher=tiny(1, width=8), **given)
    config = ofd_distiller()
    config["teacher_recorders"]["feat"]["source"] = "conv2"
    with pytest.raises(ModelError, match="expected a batch norm with weight and bias, got Conv2d"):
        OverhaulFeatureDistillation(distiller=config, teacher=tiny(1, width=8), **given)


def test_every_algorithm_is_built_by_name():
    model = build(
        {
            "type": "mmrazor.SingleTeacherDistill",
            "_scope_": "mmrazor",
            "architecture": {"type": "tests.compress.distill.tiny:tiny", "label_smoothing": 0.1},
            "teacher": tiny(1),
            "distiller": kd(),
        },
        ALGORITHMS,
        "model",
    )
    smooth = functional.cross_entropy(tiny(0)(images()), targets(), label_smoothing=0.1)
    torch.testing.assert_close(model.train()(images(), targets(), mode="loss")["student.loss"], smooth)
    with pytest.raises(RecipeError, match="unknown model 'SingleTeacherDistil'; did you mean 'SingleTeacherDistill'"):
        build({"type": "mmrazor.SingleTeacherDistil"}, ALGORITHMS, "model")
    with pytest.raises(RecipeError, match="no keyword 'teacher_checkpoint'; did you mean 'teacher_ckpt'|known"):
        build({"type": "OverhaulFeatureDistillation", "teacher_checkpoint": ""}, ALGORITHMS, "model")
