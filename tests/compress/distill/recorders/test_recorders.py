"""Recorders as the predecessor's documentation uses them, and what it did not get right."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from razordeploy.compress.distill.recorders.function import FunctionInputsRecorder, FunctionOutputsRecorder
from razordeploy.compress.distill.recorders.method import MethodInputsRecorder, MethodOutputsRecorder
from razordeploy.compress.distill.recorders.module import (
    ModuleInputsRecorder,
    ModuleOutputsRecorder,
    ParameterRecorder,
)
from razordeploy.errors import ModelError, RecipeError
from tests.compress.distill import toy_module
from tests.compress.distill.toy_module import Child, InPlace, Toy, ToyModel, image

HERE = "tests.compress.distill.toy_module"


def ready(recorder: Any, model: nn.Module | None = None) -> Any:
    recorder.initialize(model)
    return recorder


def test_function_outputs():
    r1 = ready(FunctionOutputsRecorder(f"{HERE}.toy_func"))
    with r1:
        outs = [toy_module.toy_func() for _ in range(3)]
    assert r1.data_buffer == outs
    assert r1.get_record_data(record_idx=2) == outs[2]
    r2 = ready(FunctionOutputsRecorder(f"{HERE}.toy_list_func"))
    with r2:
        lists = [toy_module.toy_list_func() for _ in range(3)]
    assert r2.get_record_data(record_idx=2, data_idx=1) == lists[2][1]
    # The next block starts anew.
    with r1:
        pass
    assert r1.data_buffer == []


def test_method_outputs_of_every_instance():
    r1 = ready(MethodOutputsRecorder(f"{HERE}.Toy.toy_func"))
    with r1:
        outs = [toy.toy_func() for toy in (Toy(), Toy(), Child())]
    assert r1.data_buffer == outs
    r1 = ready(MethodOutputsRecorder(f"{HERE}.Toy.static"))
    with r1:
        outs = [Toy.static(1), Toy().static(2)]
    assert r1.data_buffer == outs
    r1 = ready(MethodOutputsRecorder(f"{HERE}.Toy.made"))
    with r1:
        assert Toy.made() == ("Toy", 5) and Child().made(7) == ("Child", 7)
    assert r1.data_buffer == [("Toy", 5), ("Child", 7)]


def test_inputs_stand_at_their_parameter_however_they_are_passed():
    r1 = ready(FunctionInputsRecorder(f"{HERE}.toy_sum"))
    with r1:
        toy_module.toy_sum(1)
        toy_module.toy_sum(b=4, a=3)
        toy_module.toy_sum(1, 2, 3, 4, scale=5, more=6)
    assert r1.data_buffer == [(1, 2, 1), (3, 4, 1), (1, 2, 3, 4, 5, 6)]
    r2 = ready(MethodInputsRecorder(f"{HERE}.Toy.toy_sum"))
    with r2:
        Toy().toy_sum(1)
        Child().toy_sum(b=4, a=3)
    assert r2.data_buffer == [(1, 2), (3, 4)]
    for name, expected in (("static", (7,)), ("made", (7,))):
        r3 = ready(MethodInputsRecorder(f"{HERE}.Toy.{name}"))
        with r3:
            getattr(Child(), name)(a=7)
        assert r3.data_buffer == [expected]


def test_module_outputs_and_inputs():
    model, x = ToyModel(), image()
    outputs, inputs = ready(ModuleOutputsRecorder("conv1"), model), ready(ModuleInputsRecorder(""), model)
    with outputs, inputs:
        model(x, shift=2.0)
    assert torch.equal(outputs.data_buffer[0], model.conv1(x))
    assert torch.equal(outputs.data_buffer[1], model.conv1(x + 2.0))
    assert outputs.data_buffer[0].grad_fn is not None
    assert inputs.get_record_data(data_idx=0) is x and inputs.get_record_data(data_idx=1) == 2.0


def test_a_parameter_is_there_without_a_with_block():
    model = ToyModel()
    r1 = ready(ParameterRecorder("conv1.weight"), model)
    assert r1.data_buffer[0] is model.conv1.weight
    with r1:
        model(image())
    assert len(r1.data_buffer) == 1
    with torch.no_grad():
        model.conv1.weight.fill_(3.0)
    with r1:
        assert r1.get_record_data().item() == 3.0


PATHS = ["Toy.toy_func", "Child.toy_func", "Toy.static", "Toy.made", "Child.made"]


@pytest.mark.parametrize("path", PATHS)
def test_methods_leave_no_trace(path):
    owner, name = getattr(toy_module, path.split(".")[0]), path.split(".")[1]
    before, own = inspect.getattr_static(owner, name), name in vars(owner)
    recorder = ready(MethodOutputsRecorder(f"{HERE}.{path}"))
    with recorder:
        assert inspect.getattr_static(owner, name) is not before
    assert inspect.getattr_static(owner, name) is before
    assert (name in vars(owner)) == own


def test_functions_and_modules_leave_no_trace_even_after_an_error():
    before, model = toy_module.toy_func, ToyModel()
    keys = set(vars(model.conv1))
    with (
        pytest.raises(ZeroDivisionError),
        ready(FunctionOutputsRecorder(f"{HERE}.toy_func")),
        ready(ModuleOutputsRecorder("conv1"), model),
        ready(ModuleInputsRecorder("conv1"), model),
    ):
        model(image())
        _ = 1 / 0
    assert toy_module.toy_func is before
    assert not model.conv1._forward_hooks and not model.conv1._forward_pre_hooks
    assert set(vars(model.conv1)) == keys


def test_recorders_of_one_place_all_record_and_end_in_any_order():
    before = toy_module.toy_func
    first, second = (ready(FunctionOutputsRecorder(f"{HERE}.toy_func")) for _ in range(2))
    inputs = ready(FunctionInputsRecorder(f"{HERE}.toy_func"))
    first.__enter__()
    second.__enter__()
    inputs.__enter__()
    a = toy_module.toy_func()
    first.__exit__(None, None, None)
    b = toy_module.toy_func()
    inputs.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert toy_module.toy_func is before
    assert first.data_buffer == [a] and second.data_buffer == [a, b] and inputs.data_buffer == [(), ()]


@pytest.mark.parametrize(
    "make",
    [
        lambda model: ready(ModuleOutputsRecorder("conv1"), model),
        lambda model: ready(ModuleInputsRecorder("conv1"), model),
        lambda model: ready(ParameterRecorder("conv1.weight"), model),
        lambda model: ready(FunctionOutputsRecorder(f"{HERE}.toy_func")),
        lambda model: ready(MethodInputsRecorder(f"{HERE}.Toy.toy_func")),
    ],
    ids=["outputs", "inputs", "parameter", "function", "method"],
)
@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy], ids=["pickle", "copy"])
def test_recorders_are_copied_with_their_model(make: Callable[[nn.Module], Any], again: Callable[[Any], Any]):
    model = ToyModel(Toy())
    recorder, other = again((make(model), model))
    with recorder:
        other(image())
        toy_module.toy_func()
    assert len(recorder.data_buffer) in (1, 2)
    if isinstance(recorder, ParameterRecorder):
        assert recorder.data_buffer[0] is other.conv1.weight


def test_a_module_that_was_replaced_is_recorded():
    # As mmengine does when it converts batch norm for several processes.
    model = ToyModel()
    recorder = ready(ModuleOutputsRecorder("conv1"), model)
    model.conv1 = nn.Conv2d(1, 1, 1)
    with recorder:
        model(image())
    assert len(recorder.data_buffer) == 2


def test_nothing_grows_and_nothing_is_held_after_a_reset():
    model = ToyModel()
    recorder = ready(ModuleOutputsRecorder("conv1"), model)
    for _ in range(100):
        with recorder:
            model(image())
        assert len(recorder.data_buffer) == 2
    held = weakref.ref(recorder.data_buffer[0])
    assert held() is not None
    recorder.reset_data_buffer()
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("grad", [True, False])
def test_a_record_that_was_overwritten_is_refused(grad):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    for inplace in (True, False):
        model = InPlace(inplace)
        recorder = ready(ModuleOutputsRecorder("norm"), model)
        with torch.set_grad_enabled(grad), recorder:
            model(x)
        if inplace:
            with pytest.raises(ModelError, match="module 'norm' gave was changed in place .* inplace=False"):
                recorder.get_record_data()
        else:
            assert recorder.get_record_data().min() < 0


def test_inference_mode_records_too():
    model = ToyModel()
    recorder = ready(ModuleOutputsRecorder("conv2"), model)
    with torch.inference_mode(), recorder:
        out = model(image())
    assert recorder.get_record_data() is out


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FunctionOutputsRecorder(f"{HERE}.toy_fnc"), "has no 'toy_fnc'; did you mean 'toy_func'"),
        (lambda: FunctionOutputsRecorder("tests.compress.distill.toy_modul.f"), "no module 'toy_modul'; did you mean"),
        (lambda: FunctionOutputsRecorder("nowhere.f"), "there is no module 'nowhere'; check the path"),
        (lambda: FunctionOutputsRecorder("toy_func"), "of the form 'pkg.module.function', got 'toy_func'"),
        (lambda: FunctionOutputsRecorder(f"{HERE}.Toy"), "expected a function, got type"),
        (lambda: MethodOutputsRecorder(f"{HERE}.Toi.toy_func"), "has no 'Toi'; did you mean 'Toy'"),
        (lambda: MethodOutputsRecorder(f"{HERE}.Toy.toy_fun"), "has no 'toy_fun'; did you mean 'toy_func'"),
        (lambda: MethodOutputsRecorder(f"{HERE}.toy_func.x"), "to be a class, got function"),
        (lambda: MethodOutputsRecorder(f"{HERE}.x"), "toy_module' to be a class, got module"),
    ],
)
def test_paths_that_lead_nowhere_fail_when_built(make, message):
    with pytest.raises(RecipeError, match=message):
        make()


@pytest.mark.parametrize(
    ("recorder", "message"),
    [
        (ModuleOutputsRecorder("conv3"), "no module 'conv3' in ToyModel; did you mean 'conv"),
        (ModuleOutputsRecorder("backbone.layer1"), "'the model' has conv1, conv2"),
        (ParameterRecorder("conv1.wait"), "no parameter 'conv1.wait' in ToyModel; did you mean"),
        (ParameterRecorder("conv1.running"), "'conv1' has bias, weight|did you mean"),
    ],
)
def test_names_that_the_model_has_not(recorder, message):
    with pytest.raises(ModelError, match=message):
        recorder.initialize(ToyModel())
    with pytest.raises(ModelError, match="expected the model to record, got NoneType"):
        recorder.initialize()


def test_records_that_are_not_there():
    model = ToyModel()
    recorder = ModuleOutputsRecorder("conv1")
    with pytest.raises(ModelError, match=r"'conv1' is not ready; call initialize\(\)"), recorder:
        pass
    recorder.initialize(model)
    with pytest.raises(ModelError, match="module 'conv1' was never called in this forward pass"):
        recorder.get_record_data()
    with recorder:
        model(image())
    assert torch.equal(recorder.get_record_data(-1), recorder.get_record_data(1))
    with pytest.raises(ModelError, match="module 'conv1' was called 2 times, got record_idx=2"):
        recorder.get_record_data(2)
    with pytest.raises(ModelError, match="data_idx=0 needs a tuple or list, got Tensor"):
        recorder.get_record_data(0, data_idx=0)
    inputs = ready(ModuleInputsRecorder("conv1"), model)
    with inputs:
        model(image())
    with pytest.raises(ModelError, match="recorded 1 items, got data_idx=1"):
        inputs.get_record_data(0, data_idx=1)
