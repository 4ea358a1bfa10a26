"""From records through connectors to losses, and what does not fit together."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from razordeploy.compress.distill.distillers.build import build_distiller
from razordeploy.errors import ModelError, RecipeError
from tests.compress.distill.tiny import images, kd, outputs, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def ran(config: dict[str, Any], student: nn.Module, teacher: nn.Module) -> Any:
    distiller = build_distiller(config)
    distiller.prepare_from_student(student)
    distiller.prepare_from_teacher(teacher)
    with distiller.teacher_recorders, torch.no_grad():
        teacher(images())
    with distiller.student_recorders:
        student(images())
    return distiller


def feature_config(**mapping: Any) -> dict[str, Any]:
    return {
        "student_recorders": {"feat": outputs("relu2")},
        "teacher_recorders": {"feat": outputs("relu2")},
        "connectors": {"adapt": {"type": "ConvModuleConnector", "in_channel": 8, "out_channel": 16, "act_cfg": None}},
        "distill_losses": {"loss_hint": {"type": "L2Loss", "normalize": False}},
        "loss_forward_mappings": {
            "loss_hint": {
                "s_feature": {"recorder": "feat", "from_student": True, "connector": "adapt", **mapping},
                "t_feature": {"recorder": "feat", "from_student": False},
            }
        },
    }


def test_a_loss_of_logits_and_its_gradient():
    student, teacher = tiny(0), tiny(1, width=8)
    distiller = ran(kd(loss_weight=0.5), student, teacher)
    (loss,) = distiller.compute_distill_losses().values()
    expected = (
        0.5
        * 16
        * functional.kl_div(
            functional.log_softmax(student(images()) / 4, 1),
            functional.softmax(teacher(images()) / 4, 1),
            reduction="batchmean",
        )
    )
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert student.conv1.weight.grad is not None and teacher.conv1.weight.grad is None


def test_a_connector_stands_between_record_and_loss():
    student, teacher = tiny(0), tiny(1, width=8)
    distiller = ran(feature_config(), student, teacher)
    (loss,) = distiller.compute_distill_losses().values()
    adapted = distiller.connectors["adapt"](distiller.get_record("feat", from_student=True))
    there = distiller.get_record("feat", False)
    torch.testing.assert_close(loss, (adapted - there).square().sum() / 6)
    torch.testing.assert_close(distiller.get_record("feat", True, connector="adapt"), adapted)


def test_shapes_that_differ_name_loss_and_connector():
    config = feature_config()
    del config["loss_forward_mappings"]["loss_hint"]["s_feature"]["connector"]
    with pytest.raises(ModelError, match="distill loss 'loss_hint': L2Loss: .*in_channel=8, out_channel=16"):
        ran(config, tiny(0), tiny(1, width=8)).compute_distill_losses()


def test_a_connector_that_several_losses_share_runs_once():
    config = feature_config()
    config["connectors"]["adapt"]["norm_cfg"] = {"type": "BN"}
    config["distill_losses"]["loss_l1"] = {"type": "L1Loss"}
    config["loss_forward_mappings"]["loss_l1"] = config["loss_forward_mappings"]["loss_hint"]
    distiller = ran(config, tiny(0), tiny(1, width=8))
    assert set(distiller.compute_distill_losses()) == {"loss_hint", "loss_l1"}
    assert distiller.connectors["adapt"].conv_module.bn.num_batches_tracked.item() == 1


def test_items_of_records_and_connectors():
    config = {
        "student_recorders": {"pool": {"type": "ModuleInputs", "source": "pool"}},
        "teacher_recorders": {"feat": outputs("relu2")},
        "connectors": {
            "exit": {
                "type": "BYOTConnector",
                "in_channel": 8,
                "out_channel": 16,
                "num_classes": 3,
                "expansion": 1,
                "pool_size": 2,
            }
        },
        "distill_losses": {"loss_a": {"type": "L2Loss"}, "loss_b": {"type": "L2Loss"}},
        "loss_forward_mappings": {
            "loss_a": {
                "s_feature": {"recorder": "pool", "from_student": True, "data_idx": 0},
                "t_feature": {"recorder": "feat", "from_student": False},
            },
            "loss_b": {
                "s_feature": {
                    "recorder": "pool",
                    "from_student": True,
                    "data_idx": 0,
                    "connector": "exit",
                    "connector_idx": 1,
                },
                "t_feature": {
                    "recorder": "pool",
                    "from_student": True,
                    "data_idx": 0,
                    "connector": "exit",
                    "connector_idx": 1,
                },
            },
        },
    }
    distiller = ran(config, tiny(0), tiny(1))
    losses = distiller.compute_distill_losses()
    assert losses["loss_a"] > 0 and losses["loss_b"] == 0
    assert distiller.get_record("pool", True, 0, 0, "exit", 0).shape == (6, 16)


def test_several_teachers_are_a_list_of_records():
    teachers = nn.ModuleDict({"a": tiny(1), "b": tiny(2)})
    teachers.forward = lambda x: [teacher(x) for teacher in teachers.values()]
    config = kd()
    config["teacher_recorders"] = {"a": outputs("a.fc"), "b": outputs("b.fc")}
    config["distill_losses"] = {"loss_kl": {"type": "MultiTeacherSoftCELoss"}}
    config["loss_forward_mappings"]["loss_kl"]["preds_T"] = [
        {"recorder": name, "from_student": False} for name in ("a", "b")
    ]
    student = tiny(0)
    (loss,) = ran(config, student, teachers).compute_distill_losses().values()
    soft = sum(teacher(images()).softmax(1) for teacher in teachers.values()) / 2
    torch.testing.assert_close(loss, -(soft * student(images()).log_softmax(1)).sum(1).mean())


def test_losses_are_in_single_precision_under_autocast():
    student, teacher = tiny(0), tiny(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        distiller = ran(kd(), student, teacher)
        assert distiller.get_record("fc", True).dtype == torch.bfloat16
        (loss,) = distiller.compute_distill_losses().values()
    records = [distiller.get_record("fc", side).float() for side in (True, False)]
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, distiller.distill_losses["loss_kl"](*records))


def test_losses_of_other_packages():
    pytest.importorskip("mmcls", reason="needs mmcls")
    config = kd()
    config["distill_losses"] = {"loss_ce": {"type": "mmcls.CrossEntropyLoss", "loss_weight": 0.7}}
    config["student_recorders"]["labels"] = {"type": "ModuleInputs", "source": ""}
    config["loss_forward_mappings"] = {
        "loss_ce": {
            "cls_score": {"recorder": "fc", "from_student": True},
            "label": {"recorder": "fc", "from_student": False},
        }
    }
    distiller = build_distiller(config)
    assert type(distiller.distill_losses["loss_ce"]).__module__.startswith("mmcls.")
    config["distill_losses"]["loss_ce"]["type"] = "mmcls.CrossEntropyLos"
    with pytest.raises(RecipeError, match="unknown loss 'mmcls.CrossEntropyLos'; did you mean 'CrossEntropyLoss'"):
        build_distiller(config)


def test_byot_records_of_the_teacher_carry_no_gradient():
    config = {**kd(), "type": "mmrazor.BYOTDistiller"}
    student = tiny(0)
    distiller = build_distiller(config)
    distiller.prepare_from_student(student)
    distiller.prepare_from_teacher(student)
    with distiller.student_recorders, distiller.teacher_recorders:
        student(images())
    assert distiller.get_record("fc", True).requires_grad
    assert not distiller.get_record("fc", False).requires_grad


def test_everything_is_forgotten_on_request():
    distiller = ran(kd(), tiny(0), tiny(1))
    distiller.reset_data_buffer()
    with pytest.raises(ModelError, match="'fc' was never called"):
        distiller.compute_distill_losses()


WRONG = {
    "unmapped": (lambda c: c["loss_forward_mappings"].clear(), "distill loss 'loss_kl' is never computed"),
    "no loss": (
        lambda c: c["loss_forward_mappings"].update(loss_k={}),
        "no distill loss 'loss_k'; did you mean 'loss_kl'",
    ),
    "argument": (
        lambda c: c["loss_forward_mappings"]["loss_kl"].update(pred_S={}),
        "KLDivergence takes no 'pred_S'; did you mean 'preds_S'",
    ),
    "missing": (lambda c: c["loss_forward_mappings"]["loss_kl"].pop("preds_T"), "KLDivergence needs 'preds_T'"),
    "recorder": (
        lambda c: c["loss_forward_mappings"]["loss_kl"]["preds_S"].update(recorder="fcc"),
        r"loss_kl.preds_S: no 'fcc' in student_recorders; (did you mean 'fc'|known: fc)",
    ),
    "side": (lambda c: c.update(teacher_recorders={}), "no 'fc' in teacher_recorders; teacher_recorders is empty"),
    "connector": (
        lambda c: c["loss_forward_mappings"]["loss_kl"]["preds_S"].update(connector="x"),
        "no 'x' in connectors; connectors is empty",
    ),
    "key": (
        lambda c: c["loss_forward_mappings"]["loss_kl"]["preds_S"].update(record_id=1),
        "unknown key 'record_id'; did you mean 'record_idx'",
    ),
    "no side": (
        lambda c: c["loss_forward_mappings"]["loss_kl"]["preds_S"].pop("from_student"),
        "preds_S: expected 'from_student'",
    ),
    "bool": (
        lambda c: c["loss_forward_mappings"]["loss_kl"]["preds_S"].update(from_student=1),
        "expected from_student as True or False, got 1",
    ),
    "record": (lambda c: c["loss_forward_mappings"]["loss_kl"].update(preds_S="fc"), "got 'fc'"),
    "mapping": (lambda c: c["loss_forward_mappings"].update(loss_kl=3), "expected a dict of argument -> record"),
    "distiller": (lambda c: c.update(type="Distiller"), "unknown distiller 'Distiller'"),
    "keyword": (lambda c: c.update(student_recorder={}), "no keyword 'student_recorder'; did you mean"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_together(case):
    change, message = WRONG[case]
    config = copy.deepcopy(kd())
    change(config)
    with pytest.raises(RecipeError, match=message):
        build_distiller(config)
