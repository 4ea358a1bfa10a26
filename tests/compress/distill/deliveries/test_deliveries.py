"""Deliveries as the predecessor's documentation uses them, and rounds that do not match."""

from __future__ import annotations

import pickle

import pytest
import torch
from mmengine.config import ConfigDict
from torch import Tensor

from razordeploy.compress.distill.deliveries.delivery import FunctionOutputsDelivery, MethodOutputsDelivery
from razordeploy.compress.distill.deliveries.manager import DistillDeliveryManager
from razordeploy.compress.distill.recorders.function import FunctionOutputsRecorder
from razordeploy.errors import ModelError, RecipeError
from tests.compress.distill import toy_module
from tests.compress.distill.toy_module import Toy

HERE = "tests.compress.distill.toy_module"


class Mixup:
    """Mixes a batch with itself in a random order and share, as OpenMMLab's batch augmentations do."""

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        share, order = float(torch.rand(())), torch.randperm(len(images))
        mixed = share * images + (1 - share) * images[order]
        return mixed, share * labels + (1 - share) * labels[order]


def test_one_output():
    delivery = FunctionOutputsDelivery(max_keep_data=1, func_path=f"{HERE}.toy_func")
    delivery.override_data = False
    with delivery:
        teacher = toy_module.toy_func()
    delivery.override_data = True
    with delivery:
        student = toy_module.toy_func()
    assert teacher == student


def test_several_outputs_first_in_first_out():
    delivery = FunctionOutputsDelivery(max_keep_data=3, func_path=f"{HERE}.toy_func")
    with delivery:
        teacher = [toy_module.toy_func() for _ in range(3)]
    delivery.override_data = True
    with delivery:
        assert [toy_module.toy_func() for _ in range(3)] == teacher
    assert not delivery.data_queue


def test_teacher_and_student_get_the_same_mixup():
    augments, images = Mixup(), torch.randn(8, 3, 4, 4)
    labels = torch.eye(8)
    assert not torch.equal(augments(images, labels)[0], augments(images, labels)[0])
    manager = DistillDeliveryManager(
        [ConfigDict(type="MethodOutputs", max_keep_data=1, method_path=f"{__name__}.Mixup.__call__")]
    )
    for _ in range(3):
        manager.override_data = False
        with manager:
            teacher = augments(images, labels)
        manager.override_data = True
        with manager:
            student = augments(images, labels)
        assert torch.equal(teacher[0], student[0]) and torch.equal(teacher[1], student[1])


def test_what_was_left_over_is_not_handed_out_a_step_later():
    delivery = MethodOutputsDelivery(max_keep_data=2, method_path=f"{HERE}.Toy.toy_func")
    for _ in range(3):
        delivery.override_data = False
        with delivery:
            teacher = [Toy().toy_func() for _ in range(2)]
        delivery.override_data = True
        with delivery:
            # The student calls it once only.
            assert Toy().toy_func() == teacher[0]


def test_several_teachers_fill_one_queue():
    delivery = FunctionOutputsDelivery(max_keep_data=2, func_path=f"{HERE}.toy_func")
    kept = []
    for _ in range(2):
        delivery.override_data = False
        with delivery:
            kept.append(toy_module.toy_func())
    delivery.override_data = True
    with delivery:
        assert [toy_module.toy_func(), toy_module.toy_func()] == kept


def test_counts_that_do_not_match():
    delivery = FunctionOutputsDelivery(max_keep_data=1, func_path=f"{HERE}.toy_func")
    with delivery:
        toy_module.toy_func()
        with pytest.raises(ModelError, match=r"toy_func' was called more than max_keep_data=1 times; set"):
            toy_module.toy_func()
    delivery.override_data = True
    with delivery:
        toy_module.toy_func()
        with pytest.raises(ModelError, match="asked for more outputs than were kept; both models"):
            toy_module.toy_func()


def test_no_trace_and_picklable():
    before = toy_module.toy_func
    delivery = pickle.loads(pickle.dumps(FunctionOutputsDelivery(f"{HERE}.toy_func", 1)))
    with pytest.raises(ZeroDivisionError), delivery:
        assert toy_module.toy_func is not before
        _ = 1 / 0
    assert toy_module.toy_func is before


def test_what_is_delivered_can_be_recorded():
    delivery = FunctionOutputsDelivery(f"{HERE}.toy_func", 1)
    recorder = FunctionOutputsRecorder(f"{HERE}.toy_func")
    recorder.initialize()
    with recorder, delivery:
        teacher = toy_module.toy_func()
    assert recorder.data_buffer == [teacher]
    delivery.override_data = True
    with recorder, delivery:
        toy_module.toy_func()
    assert recorder.data_buffer == [teacher]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"type": "MethodOutput"}, "unknown delivery 'MethodOutput'; did you mean 'MethodOutputs'"),
        ({"type": "MethodOutputs", "max_keep_data": 1}, "MethodOutputsDelivery needs method_path"),
        ({"type": "FunctionOutputs", "func_path": f"{HERE}.toy_fun", "max_keep_data": 1}, "did you mean 'toy_func'"),
        ({"type": "FunctionOutputs", "func_path": f"{HERE}.toy_func", "max_keep_data": 0}, "of 1 or more, got 0"),
    ],
)
def test_wrong_entries(config, message):
    with pytest.raises(RecipeError, match=message):
        DistillDeliveryManager({"mixup": config})
