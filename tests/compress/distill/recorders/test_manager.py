"""Several recorders in one block."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from mmengine.config import ConfigDict

from razordeploy.compress.distill.recorders.manager import RecorderManager
from razordeploy.compress.distill.recorders.table import RECORDERS
from razordeploy.errors import ModelError, RecipeError
from tests.compress.distill import toy_module
from tests.compress.distill.toy_module import Toy, ToyModel, image

HERE = "tests.compress.distill.toy_module"


def manager() -> RecorderManager:
    return RecorderManager(
        {
            "conv1_rec": ConfigDict(type="ModuleOutputs", source="conv1"),
            "conv2_rec": ConfigDict(type="mmrazor.ModuleOutputsRecorder", source="conv2"),
            "func_rec": ConfigDict(type="MethodOutputs", source=f"{HERE}.Toy.toy_func"),
        }
    )


def test_as_documented():
    found, model = manager(), ToyModel(Toy())
    found.initialize(model)
    with found:
        out = model(image())
    conv2 = found.get_recorder("conv2_rec").get_record_data()
    assert torch.equal(conv2 + found.get_recorder("func_rec").get_record_data(), out)
    assert list(found.recorders) == ["conv1_rec", "conv2_rec", "func_rec"]
    found.reset_data_buffer()
    assert all(recorder.data_buffer == [] for recorder in found.recorders.values())


def test_every_type_of_the_table_can_be_named():
    sources = {"Function": f"{HERE}.toy_func", "Method": f"{HERE}.Toy.toy_func", "Module": "conv1"}
    for name in RECORDERS:
        short = name.removesuffix("Recorder")
        source = next((path for kind, path in sources.items() if name.startswith(kind)), "conv1.weight")
        found = RecorderManager({"x": {"type": short, "source": source}})
        assert type(found.get_recorder("x")).__name__ == name
        found.initialize(ToyModel())


def test_an_error_on_the_way_in_takes_the_others_off_again():
    model, before = ToyModel(), Toy.toy_func
    found = RecorderManager(
        {
            "first": {"type": "MethodOutputs", "source": f"{HERE}.Toy.toy_func"},
            "second": {"type": "ModuleOutputs", "source": "conv1"},
        }
    )
    found.initialize(model)
    del model.conv1
    with pytest.raises(AttributeError), found:
        pass
    assert toy_module.Toy.toy_func is before


def test_a_manager_is_picklable_with_its_model():
    model = ToyModel(Toy())
    found = manager()
    found.initialize(model)
    for other, its_model in (pickle.loads(pickle.dumps((found, model))), copy.deepcopy((found, model))):
        with other:
            its_model(image())
        assert len(other.get_recorder("conv1_rec").data_buffer) == 2


def test_empty_and_unknown():
    with RecorderManager(), RecorderManager({}):
        pass
    with pytest.raises(RecipeError, match="no recorder 'fc'; there are none"):
        RecorderManager().get_recorder("fc")
    with pytest.raises(RecipeError, match="no recorder 'conv1_recorder'; did you mean 'conv1_rec'"):
        manager().get_recorder("conv1_recorder")
    with pytest.raises(RecipeError, match="unknown recorder 'ModulOutputs'; did you mean 'ModuleOutputs'"):
        RecorderManager({"x": {"type": "ModulOutputs", "source": "a"}})
    with pytest.raises(RecipeError, match="recorder ModuleOutputsRecorder has no keyword 'sources'.* 'source'"):
        RecorderManager({"x": {"type": "ModuleOutputs", "sources": ["a"]}})
    with pytest.raises(ModelError, match="no module 'conv1'"):
        manager().initialize(torch.nn.Linear(1, 1))
