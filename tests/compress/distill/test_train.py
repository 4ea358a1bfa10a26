"""``razordeploy train`` on distillation recipes: plain data, OpenMMLab configs, stages, what is refused first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import razordeploy as rd
from razordeploy.assemble import assemble
from razordeploy.capture.build import build_model
from razordeploy.cli.train import run
from razordeploy.compress.distill.train import build_algorithm, train_distillation
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import CheckpointError, ModelError, RazorDeployError, RecipeError
from tests.compress.distill.tiny import kd, outputs, tiny

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HERE = "tests.compress.distill.tiny"
MODEL: dict[str, Any] = {
    "type": "mmrazor.SingleTeacherDistill",
    "architecture": {"type": f"{HERE}:tiny"},
    "teacher": {"type": f"{HERE}:tiny", "width": 8},
    "teacher_ckpt": "teacher.pth",
    "distiller": kd(),
}
BASE: dict[str, Any] = {
    "data": {"type": f"{HERE}:samples"},
    "train": {"epochs": 2, "batch_size": 16, "lr": 0.01, "threads": 1},
    "checkpoint": "student.pth",
    "deploy": {"backends": ["onnxruntime"], "input_shapes": [(1, 8, 8)]},
}


@pytest.fixture(autouse=True)
def one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    torch.save(tiny(7, width=8).state_dict(), tmp_path / "teacher.pth")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def recipe(tmp_path: Path, model: dict[str, Any] | None = None, **sections: Any) -> str:
    content = {**BASE, "model": {**MODEL, **(model or {})}, **sections}
    file = tmp_path / "recipe.py"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items() if value is not None))
    return str(file)


def trained(file: str, **options: Any) -> dict[str, torch.Tensor]:
    path = train_distillation(load_recipe(file), work_dir="run", **options)
    return torch.load(path, weights_only=True)


def test_the_command_writes_the_plain_students_weights(tmp_path, capsys):
    file = recipe(tmp_path)
    run(file, work_dir=None, overrides={}, resume=False, amp=False, launcher="none")
    assert capsys.readouterr().out.splitlines() == ["wrote student.pth", f"next: razordeploy ptq {file}"]
    student = tiny(0)
    student.load_state_dict(torch.load(tmp_path / "student.pth", weights_only=True), strict=True)
    # What is deployed is the student alone, with these weights.
    built = build_model(load_recipe(file))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(built.module(x), student.eval()(x)) and built.input_shapes == ((1, 8, 8),)


def test_a_run_that_was_cut_goes_on_to_the_same_weights(tmp_path):
    file = recipe(tmp_path)
    whole = trained(file)
    load = load_recipe(file, {"train.epochs": "1"})
    train_distillation(load, work_dir="cut")
    path = train_distillation(load_recipe(file), work_dir="cut", resume=True)
    again = torch.load(path, weights_only=True)
    # The learning rate falls over as many epochs as the recipe says, so only what resuming restores is compared.
    assert again.keys() == whole.keys()
    assert not torch.equal(again["fc.weight"], torch.load("cut/epoch_1.pth")["state_dict"]["architecture.fc.weight"])


def test_the_check_leaves_no_trace_in_the_weights(tmp_path, monkeypatch):
    from razordeploy.compress.distill import train

    checked = trained(recipe(tmp_path, teacher=None, seed=3))
    monkeypatch.setattr(train.CheckFirstBatch, "before_train", lambda self, runner: None)
    unchecked = trained(recipe(tmp_path, teacher=None, seed=3))
    assert all(torch.equal(checked[key], unchecked[key]) for key in checked)


REFUSED = {
    "teacher file": ({"teacher_ckpt": "missing.pth"}, {}, CheckpointError, "no checkpoint 'missing.pth'"),
    "no teacher file": ({"teacher_ckpt": None}, {}, RecipeError, "the teacher has no weights"),
    "algorithm": ({"type": "SingleTeacher"}, {}, RecipeError, "unknown algorithm 'SingleTeacher'"),
    "keyword": ({"teacher_chkpt": "x"}, {}, RecipeError, "no keyword 'teacher_chkpt'; did you mean 'teacher_ckpt'"),
    "train key": ({}, {"train": {"epoch": 1}}, RecipeError, "unknown key 'epoch' in 'train'; did you mean 'epochs'"),
    "module": (
        {"distiller": {**kd(), "student_recorders": {"fc": outputs("fcc")}}},
        {},
        ModelError,
        "no module 'fcc' in Tiny",
    ),
    "shape": ({"architecture": {"type": f"{HERE}:tiny", "num_classes": 4}}, {}, ModelError, "in_features=4, out_fea"),
    "nothing": ({}, {"data": None}, RecipeError, "expected 'train_dataloader' in the recipe"),
    "download": ({"teacher": {"cfg_path": "x.py", "pretrained": True}}, {}, CheckpointError, "would download weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_before_training(tmp_path, case):
    model, sections, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as caught:
        run(
            recipe(tmp_path, model, **sections),
            work_dir=None,
            overrides={},
            resume=False,
            amp=False,
            launcher="none",
        )
    assert isinstance(caught.value, RazorDeployError)
    assert not list(tmp_path.rglob("epoch_*.pth")) and not (tmp_path / "student.pth").exists()


def factor_distiller(**paraphraser: Any) -> dict[str, Any]:
    record = {"recorder": "feat", "from_student": True, "connector": "sfeat"}
    return {
        "student_recorders": {"feat": outputs("relu2")},
        "teacher_recorders": {"feat": outputs("relu2")},
        "connectors": {
            "sfeat": {"type": "Translator", "in_channel": 8, "out_channel": 4},
            "tfeat": {"type": "Paraphraser", "in_channel": 16, "out_channel": 4, **paraphraser},
        },
        "distill_losses": {"loss_ft": {"type": "FTLoss", "loss_weight": 500.0}},
        "loss_forward_mappings": {
            "loss_ft": {"s_feature": record, "t_feature": {**record, "from_student": False, "connector": "tfeat"}}
        },
    }


def test_connectors_are_pretrained_in_the_same_run(tmp_path):
    distiller = factor_distiller(pretrain_criterion={"type": "L1Loss"})
    file = recipe(tmp_path, {"distiller": distiller})
    with pytest.raises(ModelError, match="'tfeat' has a pretrain_criterion, and nothing pretrains it; custom_hooks"):
        trained(file)
    hooks = [{"type": "mmrazor.ConnectorPretrainHook", "epochs": 3, "lr": 1e-2}]
    file = recipe(tmp_path, {"distiller": distiller}, custom_hooks=hooks)
    before = build_algorithm(load_recipe(file)).distiller.connectors
    trained(file)
    state = torch.load("run/epoch_2.pth", weights_only=True)["state_dict"]
    key = "tfeat.encoder.0.weight"
    assert not torch.equal(before.get_parameter(key), state[f"distiller.connectors.{key}"])
    first = torch.load("run/epoch_1.pth", weights_only=True)["state_dict"]
    assert torch.equal(first[f"distiller.connectors.{key}"], state[f"distiller.connectors.{key}"])
    assert not torch.equal(
        first["distiller.connectors.sfeat.encoder.0.weight"], state["distiller.connectors.sfeat.encoder.0.weight"]
    )
    *_, log = sorted(Path("run").glob("*/*.log"))  # the refused run may have begun one
    assert "connector 'tfeat' is pretrained, loss" in log.read_text()


def test_pretraining_in_a_run_of_its_own(tmp_path):
    distiller = factor_distiller(phase="pretrain")
    distiller["distill_losses"] = {"loss_rec": {"type": "L2Loss"}}
    feature = {"recorder": "feat", "from_student": False}
    distiller["loss_forward_mappings"] = {
        "loss_rec": {"s_feature": feature, "t_feature": {**feature, "connector": "tfeat"}}
    }
    stage = {"distiller": distiller, "calculate_student_loss": False, "student_trainable": False}
    student = build_algorithm(load_recipe(recipe(tmp_path, stage))).student
    saved = trained(recipe(tmp_path, stage))
    assert all(torch.equal(saved[key], value) for key, value in student.state_dict().items())
    second = {
        "distiller": factor_distiller(phase="train"),
        "teacher_ckpt": None,
        "init_cfg": {"type": "Pretrained", "checkpoint": str(tmp_path / "run" / "epoch_2.pth")},
    }
    algorithm = build_algorithm(load_recipe(recipe(tmp_path, second)))
    algorithm.init_weights()
    stages = torch.load("run/epoch_2.pth", weights_only=True)["state_dict"]
    assert torch.equal(
        algorithm.distiller.connectors["tfeat"].encoder[0].weight, stages["distiller.connectors.tfeat.encoder.0.weight"]
    )
    assert torch.equal(algorithm.teacher.fc.weight, tiny(7, width=8).fc.weight)


def test_distillation_stops_at_an_epoch(tmp_path):
    hooks = [{"type": "StopDistillHook", "stop_epoch": 1}]
    trained(recipe(tmp_path, custom_hooks=hooks))
    (log,) = Path("run").glob("*/*.log")
    assert "distillation stops at epoch 1" in log.read_text()
    with pytest.raises(RecipeError, match="hook StopDistillHook has no keyword 'epoch'"):
        trained(recipe(tmp_path, custom_hooks=[{"type": "StopDistillHook", "epoch": 1}]))


def test_a_run_without_data_takes_two_optimizers(tmp_path):
    pair = {
        "s_feature": {"recorder": "fc", "from_student": True},
        "t_feature": {"recorder": "fc", "from_student": False},
    }
    distiller = {
        "student_recorders": {"fc": outputs("fc")},
        "teacher_recorders": {"fc": outputs("t.fc")},
        "distill_losses": {"loss_l1": {"type": "L1Loss"}},
        "loss_forward_mappings": {"loss_l1": pair},
    }
    opposite = {**distiller, "distill_losses": {"loss_l1": {"type": "L1Loss", "loss_weight": -1.0}}}
    model = {
        "type": "mmrazor.DataFreeDistillation",
        "architecture": {"type": f"{HERE}:tiny"},
        "teachers": {"t": {"build_cfg": {"type": f"{HERE}:tiny", "width": 8}, "ckpt_path": "teacher.pth"}},
        "generator": {"type": "ZSKTGenerator", "img_size": 8, "latent_dim": 5, "hidden_channels": 4, "channels": 1},
        "distiller": distiller,
        "generator_distiller": opposite,
    }
    sgd = {"optimizer": {"type": "SGD", "lr": 0.05}}
    sections = {
        "train": None,
        "train_dataloader": {"batch_size": 12},
        "train_cfg": {"by_epoch": False, "max_iters": 6},
        "optim_wrapper": {
            "constructor": "mmrazor.SeparateOptimWrapperConstructor",
            "architecture": sgd,
            "generator": sgd,
        },
        "param_scheduler": {name: {"type": "ConstantLR", "by_epoch": False} for name in ("architecture", "generator")},
        "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 3, "by_epoch": False}},
        "default_scope": "mmengine",
    }
    file = tmp_path / "recipe.py"
    content = {**BASE, "model": model, **sections}
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in content.items() if value is not None))
    saved = trained(str(file))
    tiny(0).load_state_dict(saved, strict=True)
    assert (tmp_path / "run" / "iter_6.pth").exists()


class TestOpenMMLab:
    """mmcls architectures, dataloaders, loops and metrics."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        pytest.importorskip("mmcls", reason="needs mmcls")
        images_dir = tmp_path / "images"
        from PIL import Image

        for split in ("train", "test"):
            for name in ("a", "b"):
                folder = images_dir / split / name
                folder.mkdir(parents=True)
                for index in range(3):
                    pixels = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
                    Image.fromarray(pixels).save(folder / f"{index}.png")
        file = tmp_path / "recipe.py"
        file.write_text(
            f'''
_base_ = ["mmcls::_base_/schedules/cifar10_bs128.py", "mmcls::_base_/default_runtime.py"]
_small = dict(type="ImageClassifier", _scope_="mmcls", backbone=dict(type="LeNet5", num_classes=-1),
              neck=dict(type="GlobalAveragePooling"),
              head=dict(type="LinearClsHead", num_classes=2, in_channels=120, loss=dict(type="CrossEntropyLoss")))
_loader = dict(batch_size=3, num_workers=0, persistent_workers=False, sampler=dict(type="DefaultSampler", shuffle=True))
def _images(split):
    return dict(type="CustomDataset", data_root="{images_dir}", data_prefix=split,
                pipeline=[dict(type="LoadImageFromFile", color_type="grayscale"), dict(type="PackClsInputs")])
model = dict(
    _scope_="mmrazor", type="SingleTeacherDistill",
    data_preprocessor=dict(type="ImgDataPreprocessor", mean=[127.0], std=[60.0]),
    architecture=_small, teacher=_small, teacher_ckpt="{tmp_path}/lenet.pth",
    distiller=dict(type="ConfigurableDistiller",
        student_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc"),
                               gt_labels=dict(type="ModuleInputs", source="head.loss_module")),
        teacher_recorders=dict(fc=dict(type="ModuleOutputs", source="head.fc")),
        distill_losses=dict(loss_dkd=dict(type="DKDLoss", tau=1, beta=0.5)),
        loss_forward_mappings=dict(loss_dkd=dict(
            preds_S=dict(recorder="fc", from_student=True), preds_T=dict(recorder="fc", from_student=False),
            gt_labels=dict(recorder="gt_labels", from_student=True, data_idx=1)))))
train_dataloader = dict(**_loader, dataset=_images("train"))
val_dataloader = dict(**_loader, dataset=_images("test"))
train_cfg = dict(by_epoch=True, max_epochs=2, val_interval=1)
val_cfg = dict(_delete_=True, type="mmrazor.SingleTeacherDistillValLoop")
val_evaluator = dict(type="Accuracy", topk=(1,))
deploy = dict(backends=["onnxruntime"], input_shape=(1, 32, 32))
'''
        )
        return file

    def teacher(self, tmp_path: Path) -> None:
        from mmengine.registry import MODELS

        from razordeploy.data.mm import registry_scope

        with registry_scope("mmcls"):
            parts = {
                "backbone": {"type": "LeNet5", "num_classes": -1},
                "neck": {"type": "GlobalAveragePooling"},
                "head": {"type": "LinearClsHead", "num_classes": 2, "in_channels": 120},
            }
            model = MODELS.build({"type": "ImageClassifier", **parts})
        torch.save({"state_dict": model.state_dict()}, tmp_path / "lenet.pth")

    def test_a_whole_run(self, tmp_path, file):
        self.teacher(tmp_path)
        recipe = load_recipe(file)
        path = train_distillation(recipe, work_dir=tmp_path / "run")
        (log,) = (tmp_path / "run").glob("*/*.log")
        text = log.read_text()
        assert "accuracy/top1" in text and "teacher.accuracy/top1" in text and "distill.loss_dkd" in text
        built = build_model(recipe, path)
        assert built.module(torch.randn(2, 1, 32, 32)).shape == (2, 2)
        state = torch.load(tmp_path / "run" / "epoch_2.pth", weights_only=True)["state_dict"]
        teacher = torch.load(tmp_path / "lenet.pth", weights_only=True)["state_dict"]
        assert all(torch.equal(state[f"teacher.{key}"], value) for key, value in teacher.items())

    def test_a_teacher_without_a_file_is_refused(self, tmp_path, file):
        with pytest.raises(CheckpointError, match=r"no checkpoint '.*lenet\.pth'"):
            train_distillation(load_recipe(file), work_dir=tmp_path / "run")


def test_a_section_narrows_the_student_first(tmp_path):
    model = {"architecture": {"type": f"{HERE}:tiny", "width": 8}}
    file = recipe(tmp_path, model, prune={"choice": 0.5, "checkpoint": "teacher.pth"})
    student = build_algorithm(load_recipe(file)).student
    x = torch.randn(2, 1, 8, 8)
    expected = rd.prune(tiny(7, width=8).eval(), example_inputs=(x,), choice=0.5)
    assert torch.allclose(student.eval()(x), expected(x), atol=1e-6)
    run(file, work_dir=None, overrides={}, resume=False, amp=False, launcher="none")
    state = torch.load(tmp_path / "student.pth", weights_only=True)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.state_dict().items()}
    built = assemble(load_recipe(file))
    student.load_state_dict(state)
    assert torch.allclose(built.module(x), student(x), atol=1e-6)


def test_what_cannot_be_narrowed_is_refused(tmp_path):
    fixed = {"architecture": {"type": f"{HERE}:FixedWidth"}}
    with pytest.raises(ModelError, match="FixedWidth cannot be narrowed as a student: its code fixes a width"):
        build_algorithm(load_recipe(recipe(tmp_path, fixed, prune={"choice": 0.5})))
    pruner = {"type": "RatioPruner", "architecture": {"type": f"{HERE}:tiny"}}
    file = recipe(tmp_path, None, prune={"choice": 0.5})
    with pytest.raises(RecipeError, match="RatioPruner chooses widths itself"):
        run(
            file,
            work_dir=None,
            overrides={"model": repr({"_delete_": True, **pruner})},
            resume=False,
            amp=False,
            launcher="none",
        )
