from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from torch.utils.data import DataLoader

from razordeploy.compress.nas.algorithms.spos import SPOS
from razordeploy.compress.nas.hooks import DumpSubnetHook, DynamicEvaluationHook
from razordeploy.compress.nas.loops import SubnetModel, SubnetValLoop, subnets_of
from razordeploy.compress.nas.recalibrate import calibrated_subnet
from razordeploy.compress.nas.supernets.digits import bignas_digits
from razordeploy.data.sources import build_source
from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.files import write_mapping
from razordeploy.subnet.fix import load_fix_subnet
from tests.subnet.nets import randomise


class Top1(BaseMetric):
    default_prefix = "accuracy"

    def process(self, data_batch, data_samples):
        self.results += (torch.stack(list(data_samples)) == data_batch[1]).tolist()

    def compute_metrics(self, results):
        return {"top1": 100.0 * sum(results) / len(results)}


@pytest.fixture(scope="module")
def data():
    train, test = (build_source({"type": "digits"}, split) for split in ("train", "test"))
    return DataLoader(train, batch_size=300), DataLoader(test, batch_size=200)


def _runner(data, architecture=None):
    torch.manual_seed(0)
    algorithm = SPOS(architecture=architecture or randomise(bignas_digits()))
    calls = []
    runner = SimpleNamespace(
        model=algorithm,
        train_dataloader=data[0],
        call_hook=lambda name, **given: calls.append(name),
        logger=logging.getLogger("nas"),
    )
    return runner, calls


def _accuracy(model, loader):
    hits = [(model(x).argmax(1) == y).float() for x, y in loader]
    return 100.0 * float(torch.cat(hits).mean())


def test_subnets_are_validated_on_copies(data, tmp_path):
    runner, calls = _runner(data)
    algorithm = runner.model
    algorithm.mutator.set_choices(algorithm.mutator.sample_choices())
    before = {key: value.clone() for key, value in algorithm.state_dict().items()}
    chosen = algorithm.mutator.current_choices
    given = {name: {"chosen": choice} for name, choice in algorithm.mutator.sample_choices().items()}
    write_mapping(tmp_path / "found.yaml", given)
    evaluator = Evaluator([Top1()])
    loop = SubnetValLoop(
        runner, data[1], evaluator, calibrate_sample_num=400, subnets=("max", "min", str(tmp_path / "found.yaml"))
    )
    metrics = loop.run()
    assert set(metrics) == {f"{name}_subnet.accuracy/top1" for name in ("max", "min", "found")}
    assert algorithm.mutator.current_choices == chosen
    assert all(torch.equal(before[key], value) for key, value in algorithm.state_dict().items())
    assert calls[:2] == ["before_val", "before_val_epoch"]
    assert calls[-1] == "after_val"
    # What is exported, loaded into another supernet, has the accuracy that was reported.
    algorithm.mutator.set_choices({name: value["chosen"] for name, value in given.items()})
    batches = [x for x, _ in data[0]][:2]
    _, static = calibrated_subnet(algorithm.architecture, batches)
    other = load_fix_subnet(bignas_digits(), tmp_path / "found.yaml")
    other.load_state_dict(static.state_dict(), strict=True)
    assert _accuracy(other.eval(), data[1]) == pytest.approx(metrics["found_subnet.accuracy/top1"])
    # Without calibration it is the supernet's own statistics that count.
    algorithm.mutator.set_max_choices()
    expected = _accuracy(algorithm.architecture.eval(), data[1])
    found = SubnetValLoop(runner, data[1], evaluator, calibrate_sample_num=0, subnets=("max",)).run()
    assert found == {"max_subnet.accuracy/top1": pytest.approx(expected)}


def test_a_fixed_subnet_is_validated_as_it_is(data):
    runner, _ = _runner(data)
    loop = SubnetValLoop(runner, data[1], Evaluator([Top1()]), evaluate_fixed_subnet=True)
    assert loop.run() == {"accuracy/top1": pytest.approx(_accuracy(runner.model.eval(), data[1]))}
    del runner.model.mutator
    with pytest.raises(RecipeError, match="has no mutator, so no subnets"):
        SubnetValLoop(runner, data[1], Evaluator([Top1()]))


def test_the_hook_reports_what_the_subnets_have(data):
    runner, _ = _runner(data)
    runner.epoch, runner.max_epochs = 1, 2
    hook = DynamicEvaluationHook({"type": "digits"}, interval=5, subnets=("max", "random"), calibrate_sample_num=300)
    runner.epoch = 0
    hook.after_train_epoch(runner)
    assert hook.results == []
    runner.epoch = 1
    runner.model.train()
    hook.after_train_epoch(runner)
    assert runner.model.training
    assert set(hook.results[0]) == {"max", "random1"}
    runner.model.mutator.set_max_choices()
    model = SubnetModel.calibrated(runner.model, data[0], 300).model
    assert hook.results[0]["max"] == pytest.approx(_accuracy(lambda x: model(x), data[1]))


def test_what_is_asked_for_has_to_be_there(data, tmp_path):
    runner, _ = _runner(data)
    with pytest.raises(RecipeError, match="expected 'max', 'min', 'random', a subnet file or choices, got 7"):
        subnets_of(runner.model, [7])
    with pytest.raises(ModelError, match="no such file"):
        subnets_of(runner.model, [str(tmp_path / "none.yaml")])
    loop = SubnetValLoop(runner, data[1], Evaluator([Top1()]), subnets=({"nothing": 3},))
    with pytest.raises(ModelError, match="no search group is called 'nothing'"):
        loop.run()
    runner.epoch, runner.iter = 0, 0
    with pytest.raises(RecipeError, match="SPOS does not choose a subnet while it trains"):
        DumpSubnetHook().after_train_epoch(runner)


def test_openmmlabs_samples_and_metrics(tmp_path):
    mmcls = pytest.importorskip("mmcls", reason="needs mmcls")
    from mmcls.evaluation import Accuracy
    from mmcls.structures import ClsDataSample
    from mmengine.dataset import pseudo_collate

    from razordeploy.compress.nas.supernets.classifier import SearchableImageClassifier
    from razordeploy.compress.nas.supernets.resnet_slice import ResNetSlice

    assert mmcls is not None
    torch.manual_seed(0)
    space = {"stage_out_channel": [{"type": "Categorical", "data": [4, 8]}], "stage_blocks": [1], "base_channels": 8}
    model = SearchableImageClassifier(
        backbone=ResNetSlice(18, space, num_stages=1, strides=(1,), out_indices=(0,), small_stem=True),
        neck={"type": "GlobalAveragePooling"},
        head={"type": "DynamicLinearClsHead", "num_classes": 4, "in_channels": 8, "cal_acc": True},
        data_preprocessor={"mean": [120.0] * 3, "std": [60.0] * 3, "num_classes": 4},
        connect_head={"connect_with_backbone": "backbone.feat_dim"},
    )
    samples = [
        {
            "inputs": torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8),
            "data_samples": ClsDataSample(metainfo={"sample_idx": i}).set_gt_label(i % 4),
        }
        for i in range(24)
    ]
    loader = DataLoader(samples, batch_size=8, collate_fn=pseudo_collate)
    algorithm = SPOS(architecture=model)
    log = algorithm.loss(**algorithm.data_preprocessor(next(iter(loader)), True))
    assert set(log) == {"loss", "accuracy_top-1"}
    runner = SimpleNamespace(model=algorithm, train_dataloader=loader, call_hook=lambda name, **given: None)
    metrics = SubnetValLoop(runner, loader, Evaluator([Accuracy(topk=(1, 2))])).run()
    assert set(metrics) == {f"{kind}_subnet.accuracy/top{k}" for kind in ("max", "min") for k in (1, 2)}
    assert all(0 <= value <= 100 for value in metrics.values())
