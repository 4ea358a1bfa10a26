"""Configs as mmrazor ships them, built and trained by mmengine's own Runner, on few and small images."""

from __future__ import annotations

import pytest
import torch

from tests.integrations import guide

pytest.importorskip("mmcls", reason="needs mmcls")
pytestmark = pytest.mark.filterwarnings("ignore")

IMPORTS = "custom_imports = dict(imports=['razordeploy.registry'], allow_failed_imports=False)\n"
RUNTIME = """
_base_ = [
    'mmcls::_base_/datasets/imagenet_bs32.py',
    'mmcls::_base_/schedules/imagenet_bs256.py',
    'mmcls::_base_/default_runtime.py',
]
"""
KD = f"""{RUNTIME}
model = dict(
    _scope_='mmrazor',
    type='SingleTeacherDistill',
    data_preprocessor=dict(
        type='ImgDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    architecture=dict(
        cfg_path='mmcls::resnet/resnet18_8xb32_in1k.py', pretrained=False),
    teacher=dict(
        cfg_path='mmcls::resnet/resnet34_8xb32_in1k.py', pretrained=False),
    teacher_ckpt='teacher.pth',
    distiller=dict(
        type='ConfigurableDistiller',
        student_recorders=dict(
            fc=dict(type='ModuleOutputs', source='head.fc')),
        teacher_recorders=dict(
            fc=dict(type='ModuleOutputs', source='head.fc')),
        distill_losses=dict(
            loss_kl=dict(type='KLDivergence', tau=1, loss_weight=3)),
        loss_forward_mappings=dict(
            loss_kl=dict(
                preds_S=dict(from_student=True, recorder='fc'),
                preds_T=dict(from_student=False, recorder='fc')))))

find_unused_parameters = True

val_cfg = dict(_delete_=True, type='mmrazor.SingleTeacherDistillValLoop')
"""
L1 = """
_base_ = ['mmcls::resnet/resnet18_8xb32_in1k.py']

architecture = _base_.model

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='ItePruneAlgorithm',
    architecture=architecture,
    mutator_cfg=dict(
        type='ChannelMutator',
        channel_unit_cfg=dict(
            type='L1MutableChannelUnit',
            default_args=dict(choice_mode='ratio')),
        parse_cfg=dict(
            type='ChannelAnalyzer',
            tracer_type='FxTracer',
            demo_input=dict(type='DefaultDemoInput', scope='mmcls'))),
    target_pruning_ratio={'backbone.layer1.0.conv1_(0, 64)_64': 0.5},
    step_freq=1,
    linear_schedule=False)

val_cfg = dict(_delete_=True, type='mmrazor.ItePruneValLoop')
"""
FISHER = """
_base_ = ['mmcls::resnet/resnet18_8xb32_in1k.py']

architecture = _base_.model

model = dict(
    _delete_=True,
    _scope_='mmrazor',
    type='GroupFisherAlgorithm',
    architecture=architecture,
    interval=1,
    mutator=dict(
        type='GroupFisherChannelMutator',
        parse_cfg=dict(type='ChannelAnalyzer', tracer_type='FxTracer'),
        channel_unit_cfg=dict(
            type='GroupFisherChannelUnit',
            default_args=dict(normalization_type='act'))))

model_wrapper_cfg = dict(type='mmrazor.GroupFisherDDP', broadcast_buffers=False)
optim_wrapper = dict(optimizer=dict(lr=0.004))
param_scheduler = None
custom_hooks = [
    dict(type='mmrazor.PruningStructureHook'),
    dict(
        type='mmrazor.ResourceInfoHook',
        interval=1,
        demo_input=dict(
            type='mmrazor.DefaultDemoInput', input_shape=[1, 3, 224, 224]),
        save_ckpt_thr=[0.5])
]
"""
SPOS = f"""{RUNTIME}
_STAGE_MUTABLE = dict(
    _scope_='mmrazor',
    type='OneShotMutableOP',
    candidates=dict(
        shuffle_3x3=dict(type='ShuffleBlock', kernel_size=3),
        shuffle_5x5=dict(type='ShuffleBlock', kernel_size=5),
        shuffle_7x7=dict(type='ShuffleBlock', kernel_size=7),
        shuffle_xception=dict(type='ShuffleXception')))

arch_setting = [
    [64, 4, _STAGE_MUTABLE],
    [160, 4, _STAGE_MUTABLE],
    [320, 8, _STAGE_MUTABLE],
    [640, 4, _STAGE_MUTABLE],
]

supernet = dict(
    _scope_='mmcls',
    type='ImageClassifier',
    data_preprocessor=_base_.data_preprocessor,
    backbone=dict(
        _scope_='mmrazor',
        type='SearchableShuffleNetV2',
        widen_factor=1.0,
        arch_setting=arch_setting),
    neck=dict(type='mmcls.GlobalAveragePooling'),
    head=dict(
        type='mmcls.LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        loss=dict(
            type='mmcls.LabelSmoothLoss',
            num_classes=1000,
            label_smooth_val=0.1,
            mode='original',
            loss_weight=1.0),
        topk=(1, 5)))

model = dict(
    type='mmrazor.SPOS',
    architecture=supernet,
    mutator=dict(type='mmrazor.NasMutator'))

find_unused_parameters = True
"""
SEARCH = f"""{SPOS}
train_cfg = dict(
    _delete_=True,
    type='mmrazor.EvolutionSearchLoop',
    dataloader=_base_.val_dataloader,
    evaluator=_base_.val_evaluator,
    max_epochs=1,
    num_candidates=4,
    top_k=2,
    num_mutation=1,
    num_crossover=1,
    mutate_prob=0.1,
    score_key='accuracy/top1')
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images, the weights of a teacher and of a float model."""
    place = tmp_path_factory.mktemp("configs")
    guide.write(place)
    guide.write_data(place, counts=(4, 2))
    return place


def runner_of(folder, monkeypatch, text, name):
    """The Runner of a config, on images of 64 x 64, two at a time."""
    from mmengine.config import Config
    from mmengine.runner import Runner

    monkeypatch.chdir(folder)
    file = folder / f"{name}.py"
    file.write_text(IMPORTS + text)
    config = Config.fromfile(file)
    loaders = [config[f"{split}_dataloader"] for split in ("train", "val", "test")]
    if "calibrate_dataloader" in config.get("test_cfg", {}):
        loaders.append(config.test_cfg.calibrate_dataloader)
    for loader in loaders:
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for step in loader.dataset.pipeline:
            for key in {"scale", "crop_size"} & step.keys():
                step[key] = 64
    if config.model.type.endswith("MMArchitectureQuant"):
        config.model.input_shapes = (1, 3, 64, 64)
    config.train_cfg["max_epochs"] = 1
    config.work_dir = str(folder / f"work_{name}")
    config.default_hooks.pop("checkpoint", None)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Runner.from_cfg(config)
    torch.set_num_threads(threads)
    return made


def teacher(folder):
    from mmengine.registry import MODELS

    from razordeploy.capture.config_model import read_model_config
    from razordeploy.data.mm import registry_scope

    with registry_scope("mmcls"):
        config = read_model_config({"cfg_path": "mmcls::resnet/resnet34_8xb32_in1k.py"}, folder, "teacher")
        torch.save({"state_dict": MODELS.build(config).state_dict()}, folder / "teacher.pth")


TRAINED = {"kd": KD, "l1": L1, "group_fisher": FISHER, "spos": SPOS, "lsq": guide.LSQ}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "l1")) for n in TRAINED])
def test_a_config_trains_an_epoch(folder, monkeypatch, name):
    if name == "kd":
        teacher(folder)
    runner = runner_of(folder, monkeypatch, TRAINED[name], name)
    before = {key: value.detach().clone() for key, value in runner.model.named_parameters()}
    runner.train()
    assert runner.epoch == 1
    after = dict(runner.model.named_parameters())
    assert any(not torch.equal(before[key], after[key]) for key in before)
    metrics = {key for key in runner.message_hub.log_scalars if key.startswith("val/")}
    expected = {
        "kd": {"val/accuracy/top1", "val/teacher.accuracy/top1"},
        "lsq": {"val/qat.accuracy/top1", "val/original.accuracy/top1"},
    }
    assert expected.get(name, {"val/accuracy/top1"}) <= metrics


def test_a_config_of_ptq_calibrates_and_scores(folder, monkeypatch):
    runner = runner_of(folder, monkeypatch, guide.PTQ, "ptq")
    assert "accuracy/top1" in runner.test()
    state = torch.load(folder / "work_ptq" / "model_ptq.pth", weights_only=True)
    state = state.get("state_dict", state)
    assert any(key.startswith("architecture.backbone") for key in state)
    assert any(key.endswith("scale") for key in state)


def test_a_search_says_its_command(folder, monkeypatch):
    from razordeploy.errors import RecipeError

    runner = runner_of(folder, monkeypatch, SEARCH, "search")
    with pytest.raises(RecipeError, match=r"razordeploy search .*search\.py"):
        runner.train()
