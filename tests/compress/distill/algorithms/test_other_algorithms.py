"""Several teachers, no teacher, no data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.nn import functional

from razordeploy.compress.algorithm.optim import SeparateOptimWrapperConstructor
from razordeploy.compress.distill.algorithms.data_free import DAFLDataFreeDistillation, DataFreeDistillation, batch_size
from razordeploy.compress.distill.algorithms.multi_teacher import MultiTeacherDistill
from razordeploy.compress.distill.algorithms.self_distill import SelfDistill
from razordeploy.errors import DataError, ModelError, RecipeError
from razordeploy.train.classifier import ShiftAndFlip
from tests.compress.distill.algorithms.test_single_teacher import same, state, step
from tests.compress.distill.tiny import images, kd, outputs, targets, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def fc(side: bool, recorder: str = "fc") -> dict[str, Any]:
    return {"recorder": recorder, "from_student": side}


def ensemble(**options: Any) -> MultiTeacherDistill:
    config = kd()
    config["teacher_recorders"] = {name: outputs(f"{name}.fc") for name in ("a", "b")}
    config["distill_losses"] = {
        "loss_soft": {"type": "MultiTeacherSoftCELoss", "weights": [1.0, 3.0]},
        "loss_adv": {"type": "DiscriminatorLoss", "channels": 3, "divisor": 1},
    }
    both = {"preds_S": fc(True), "preds_T": [fc(False, "a"), fc(False, "b")]}
    config["loss_forward_mappings"] = {"loss_soft": both, "loss_adv": both}
    given = {"teachers": {"a": tiny(1, dropout=0.5), "b": tiny(2, width=8)}, "distiller": config, **options}
    torch.manual_seed(0)
    return MultiTeacherDistill(architecture=tiny(0), data_preprocessor=ShiftAndFlip(), **given)


def test_an_ensemble_of_teachers():
    model = ensemble(calculate_student_loss=False)
    before, discriminator = state(model.teachers), state(model.distiller.distill_losses)
    log = step(model)
    assert set(log) == {"loss", "distill.loss_soft", "distill.loss_adv"}
    soft = sum(w * tiny(s, width=k).eval()(images()).softmax(1) for w, s, k in ((0.25, 1, 4), (0.75, 2, 8)))
    torch.testing.assert_close(log["distill.loss_soft"], -(soft * tiny(0)(images()).log_softmax(1)).sum(1).mean())
    assert same(before, state(model.teachers)) and not model.teachers["a"].dropout.training
    assert not same(discriminator, state(model.distiller.distill_losses))


def test_one_teacher_at_random():
    model = ensemble(distiller=kd(), selection="random").train()
    expected = []
    for seed, width in ((1, 4), (2, 8)):
        teacher = tiny(seed, width=width).eval()
        soft = functional.log_softmax(teacher(images()) / 4, 1)
        student = functional.log_softmax(tiny(0)(images()) / 4, 1)
        expected.append(16 * functional.kl_div(student, soft, reduction="batchmean", log_target=True).item())
    torch.manual_seed(0)
    found = [model(images(), targets(), mode="loss")["distill.loss_kl"].item() for _ in range(20)]
    counts = [sum(abs(value - each) < 1e-4 for value in found) for each in expected]
    assert sum(counts) == 20 and min(counts) > 3


def test_entries_of_teachers_that_are_wrong():
    for teachers, message in (
        ({}, "expected teachers as name"),
        ({"a": {"build_config": {}}}, r"teacher 'a': expected dict\(build_cfg"),
        ({"a": {"build_cfg": {}, "ckpt": ""}}, "teacher 'a': unknown key 'ckpt'; (did you mean 'ckpt_path'|known)"),
        ({"a": {"build_cfg": {"type": "tests.compress.distill.tiny:tiny"}}}, "the teacher has no weights"),
    ):
        with pytest.raises(RecipeError, match=message):
            ensemble(teachers=teachers)
    with pytest.raises(RecipeError, match="expected selection 'all' or 'random', got 'any'"):
        ensemble(selection="any")
    with pytest.raises(ModelError, match="no module 'a.fc'"):
        ensemble(selection="random")


def byot() -> dict[str, Any]:
    exit_ = {"recorder": "shallow", "from_student": True, "connector": "exit"}
    return {
        "type": "BYOTDistiller",
        "student_recorders": {"shallow": outputs("relu1")},
        "teacher_recorders": {
            "fc": outputs("fc"),
            "feat": outputs("pool"),
            "call": {"type": "ModuleInputs", "source": ""},
        },
        "connectors": {
            "exit": {
                "type": "BYOTConnector",
                "in_channel": 4,
                "out_channel": 8,
                "num_classes": 3,
                "expansion": 1,
                "pool_size": 2,
            }
        },
        "distill_losses": {
            "loss_feat": {"type": "L2Loss", "normalize": False, "dist": True, "loss_weight": 0.03},
            "loss_soft": {"type": "KDSoftCELoss", "tau": 3},
        },
        "loss_forward_mappings": {
            "loss_feat": {"s_feature": {**exit_, "connector_idx": 0}, "t_feature": fc(False, "feat")},
            "loss_soft": {"preds_S": {**exit_, "connector_idx": 1}, "preds_T": fc(False)},
        },
    }


def test_self_distillation_runs_the_model_once():
    model = SelfDistill(architecture=tiny(0), distiller=byot(), data_preprocessor=ShiftAndFlip())
    calls: list[int] = []
    model.student.fc.register_forward_hook(lambda *_: calls.append(1))
    assert set(step(model)) == {"loss", "student.loss", "distill.loss_feat", "distill.loss_soft"}
    assert len(calls) == 1
    # The deepest exit learns from the labels alone.
    alone = SelfDistill(architecture=tiny(0), distiller=byot(), calculate_student_loss=False).train()
    sum(alone(images(), targets(), mode="loss").values()).backward()
    assert alone.student.fc.weight.grad is None and alone.student.conv2.weight.grad is None
    assert alone.student.conv1.weight.grad is not None
    config = {
        **byot(),
        "distill_deliveries": {"d": {"type": "FunctionOutputs", "func_path": "math.sqrt", "max_keep_data": 1}},
    }
    with pytest.raises(RecipeError, match="one forward pass, in which nothing can be delivered"):
        SelfDistill(architecture=tiny(0), distiller=config)


def data_free(kind: type[DataFreeDistillation] = DataFreeDistillation, **options: Any) -> DataFreeDistillation:
    torch.manual_seed(0)
    pair = {"s_feature": fc(True), "t_feature": fc(False)}
    recorders = {"student_recorders": {"fc": outputs("fc")}, "teacher_recorders": {"fc": outputs("t.fc")}}
    given: dict[str, Any] = {
        "distiller": {
            **recorders,
            "distill_losses": {"loss_l1": {"type": "L1Loss"}},
            "loss_forward_mappings": {"loss_l1": pair},
        },
        "generator_distiller": {
            **recorders,
            "distill_losses": {"loss_l1": {"type": "L1Loss", "loss_weight": -1.0}},
            "loss_forward_mappings": {"loss_l1": pair},
        },
        "teachers": {"t": tiny(1, width=8, dropout=0.5)},
        "generator": {"type": "DAFLGenerator", "img_size": 8, "latent_dim": 5, "hidden_channels": 4, "channels": 1},
        **options,
    }
    return kind(architecture=tiny(0), data_preprocessor=ShiftAndFlip(), **given).train()


def optimizers(model: nn.Module, lr: float = 0.1) -> OptimWrapperDict:
    config = {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": lr}}
    return SeparateOptimWrapperConstructor({"architecture": config, "generator": config})(model)


BATCH = {"inputs": [torch.zeros(1)] * 6, "data_samples": [None] * 6}


@pytest.mark.parametrize("first", [True, False])
def test_a_step_without_data(first):
    model = data_free(student_iter=3, student_train_first=first)
    teacher = state(model.teachers)
    sizes: list[int] = []
    model.generator.register_forward_hook(lambda m, i, out: sizes.append(len(out)))
    log = model.train_step(BATCH, optimizers(model))
    assert set(log) == {
        *(f"distill_iter{i}.loss_l1" for i in range(3)),
        *("generator.loss_l1", "generator_loss", "loss"),
    }
    # The predecessor took the two entries of the dict for its two samples.
    assert sizes == [6] * 4
    assert same(teacher, state(model.teachers)) and not model.teachers["t"].dropout.training


def test_the_generators_step_leaves_no_gradient_behind():
    # Else the student's next step would add the gradient of the opposite aim to its own.
    model = data_free()
    model.train_generator(6, optimizers(model))
    assert all(p.grad is None for p in (*model.student.parameters(), *model.teachers.parameters()))
    assert all(p.requires_grad for p in model.student.parameters())
    before = state(model.student)
    model.train_generator(6, optimizers(model))
    assert all(torch.equal(before[key], p) for key, p in model.student.named_parameters())


def test_a_students_step_is_the_plain_one():
    model = data_free()
    torch.manual_seed(3)
    model.train_generator(6, optimizers(model))
    torch.manual_seed(4)
    batch = model.generator(batch_size=6).detach()
    student = tiny(0)
    student.load_state_dict(model.student.state_dict())
    loss = functional.l1_loss(student.train()(batch), model.teachers["t"](batch))
    loss.backward()
    torch.manual_seed(4)
    log = model.train_student(6, optimizers(model))
    torch.testing.assert_close(log["loss"], loss.detach())
    for key, parameter in student.named_parameters():
        torch.testing.assert_close(model.student.get_parameter(key), parameter - 0.1 * parameter.grad)


def test_the_generator_learns_to_find_differences():
    model = data_free()
    wrapper = optimizers(model, lr=0.05)
    torch.manual_seed(0)
    gaps = [-model.train_generator(32, wrapper)["generator_loss"].item() for _ in range(60)]
    assert sum(gaps[-10:]) > 1.1 * sum(gaps[:10])


def dafl() -> DataFreeDistillation:
    generator = {
        "teacher_recorders": {"fc": outputs("t.fc"), "feat": outputs("t.pool")},
        "distill_losses": {
            "loss_oh": {"type": "OnehotLikeLoss", "loss_weight": 0.05},
            "loss_ie": {"type": "InformationEntropyLoss", "loss_weight": 5},
            "loss_ac": {"type": "ActivationLoss", "loss_weight": 0.01},
        },
        "loss_forward_mappings": {
            "loss_oh": {"preds_T": fc(False)},
            "loss_ie": {"preds_T": fc(False)},
            "loss_ac": {"feat_T": fc(False, "feat")},
        },
    }
    student = kd()
    student["teacher_recorders"]["fc"]["source"] = "t.fc"
    return data_free(DAFLDataFreeDistillation, distiller=student, generator_distiller=generator)


def test_dafl_trains_both_on_one_batch():
    model = dafl()
    calls = {"generator": 0, "student": 0, "teacher": 0}

    def count(name: str) -> Any:
        return lambda *_: calls.update({name: calls[name] + 1})

    for name, module in (("generator", model.generator), ("student", model.student), ("teacher", model.teachers["t"])):
        module.register_forward_hook(count(name))
    before = {name: state(getattr(model, name)) for name in ("architecture", "generator", "teachers")}
    log = model.train_step(BATCH, optimizers(model))
    assert {"generator.loss_ie", "generator.loss_oh", "generator.loss_ac", "distill.loss_kl", "loss"} <= set(log)
    assert calls == {"generator": 1, "student": 1, "teacher": 2}
    assert same(before["teachers"], state(model.teachers))
    for name in ("architecture", "generator"):
        assert not same(before[name], state(getattr(model, name)))
    model.check_batch(BATCH)


def test_the_size_of_any_batch():
    assert batch_size(BATCH) == batch_size({"inputs": torch.zeros(6, 1)}) == batch_size((torch.zeros(6, 1), None)) == 6
    assert batch_size([{"inputs": 1}] * 4) == 4
    for wrong in (3, {"images": 1}, []):
        with pytest.raises(DataError, match="expected a batch to take the size of"):
            batch_size(wrong)


def test_optimizers_of_parts_that_are_not_there():
    with pytest.raises(RecipeError, match="the model has no part 'generater'; did you mean 'generator'"):
        SeparateOptimWrapperConstructor({"generater": {"optimizer": {"type": "SGD", "lr": 1}}})(data_free())
    wrapper = optimizers(data_free())
    assert isinstance(wrapper["generator"], OptimWrapper)
