"""mmrazor's loops, each in a run of mmengine's Runner."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.qat import phases
from razordeploy.quantization.qat.folded import FoldedLayer
from razordeploy.quantization.qat.graph import QATGraph
from razordeploy.quantization.qat.loops import LOOPS
from razordeploy.quantization.qat.model import QATModel
from razordeploy.train.runner import QuietRunner, close, run_name
from tests.quantization.qat.conftest import Case

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mmengine"),
]


class Right(BaseMetric):
    """Share of right classes; keeps the outputs that it saw."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.extend((torch.stack(list(data_samples)) == data_batch[1]).float().tolist())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return {"right": sum(results) / len(results)}


class Spy(Hook):
    """What the state is in every epoch and in every checkpoint."""

    def __init__(self) -> None:
        self.training: list[tuple[int, int, int]] = []
        self.saved: list[tuple[int, int]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if batch_idx == 0:
            self.training.append(_state(runner.model))

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        self.saved.append(_state(runner.model)[:2])


def _state(model: torch.nn.Module) -> tuple[int, int, int]:
    quants = [m for m in model.modules() if isinstance(m, FakeQuantizeBase)]
    layers = [m for m in model.modules() if isinstance(m, FoldedLayer)]
    learning = [int(q.learning_enabled) for q in quants if isinstance(q, LearnableFakeQuantize)]
    return sum(int(q.observer_enabled) for q in quants), sum(learning), sum(m.frozen for m in layers)


def run(
    network: QATGraph, case: Case, folder: Path, loop: dict[str, Any], evaluator: bool = False, **more: Any
) -> tuple[QuietRunner, Spy]:
    spy = Spy()
    data = DataLoader(case.source, batch_size=16)
    checked = {"val_dataloader": data, "val_cfg": {"type": LOOPS["QATValLoop"]}, "val_evaluator": [Right()]}
    runner = QuietRunner(
        model=QATModel(network),
        work_dir=str(folder),
        train_dataloader=data,
        train_cfg={**loop, "type": LOOPS[loop["type"]]},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.01}},
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1}},
        custom_hooks=[spy],
        experiment_name=run_name("loops"),
        **(checked if evaluator else {}),
        **more,
    )
    return runner, spy


def test_qat_epochs_switch_observers_off_and_norms_to_their_statistics(tmp_path):
    case = Case(quantize={"global_qconfig": {"w_fake_quant": "FakeQuantize", "a_fake_quant": "FakeQuantize"}})
    network = case.network(live_norms=True)
    loop = {"type": "QATEpochBasedLoop", "max_epochs": 3, "disable_observer_begin": 3, "freeze_bn_begin": 2}
    runner, spy = run(network, case, tmp_path, loop)
    runner.train()
    close(runner)
    quants = len(list(network.fake_quants()))
    assert spy.training == [(quants, 0, 0), (quants, 0, 2), (0, 0, 2)]
    # Saved as it is validated: nothing observes.
    assert spy.saved == [(0, 0)] * 3


def _without_scales(network: QATGraph) -> list[LearnableFakeQuantize]:
    quants = [q for q in network.fake_quants() if isinstance(q, LearnableFakeQuantize)]
    for quant in quants:
        quant.initialized_flag.fill_(False)
        quant.scale.data.fill_(1e3)
    return quants


def test_lsq_epochs_start_from_the_first_batch_once_and_a_resumed_run_does_not_start_again(tmp_path):
    case = Case("academic")
    network = case.network()
    quants = _without_scales(network)
    runner, spy = run(network, case, tmp_path, {"type": "LSQEpochBasedLoop", "max_epochs": 2, "freeze_bn_begin": 1})
    runner.train()
    close(runner)
    assert spy.training == [(0, len(quants), 2)] * 2
    assert all(q.initialized and 0 < float(q.scale.max()) < 10 for q in quants)
    saved = torch.load(tmp_path / "epoch_1.pth", weights_only=False)["state_dict"]
    again = case.network()
    for quant in _without_scales(again):
        quant.observer.observe = None  # type: ignore[assignment]  # a second start would call it
    loop = {"type": "LSQEpochBasedLoop", "max_epochs": 1}
    resumed, _ = run(again, case, tmp_path / "resumed", loop)
    resumed.model.load_state_dict(saved)
    resumed.train()
    close(resumed)
    assert all(q.initialized for q in again.fake_quants())


def test_validation_returns_the_quantized_and_the_float_figures(tmp_path):
    case = Case("academic", {"global_qconfig": {"w_qscheme": {"bit": 1}}})
    network = case.network()
    runner, _ = run(network, case, tmp_path, {"type": "QATEpochBasedLoop", "max_epochs": 1}, evaluator=True)
    found = runner.val()
    close(runner)
    x, labels = case.source.images, case.source.labels
    with torch.no_grad():
        expected = float((case.captured.graph_module(x).argmax(1) == labels).float().mean())
        rounded = float((network.eval()(x).argmax(1) == labels).float().mean())
    assert found == {"qat.right": pytest.approx(rounded), "original.right": pytest.approx(expected)}
    assert all(int(q.fake_quant_enabled) for q in network.fake_quants())


def test_calibration_observes_in_float_saves_and_validates(tmp_path):
    case = Case(quantize={"global_qconfig": {"a_observer": "MinMaxObserver", "a_fake_quant": "FakeQuantize"}})
    network = case.network()
    for quant in network.fake_quants():
        if not isinstance(quant, LearnableFakeQuantize):
            quant.observer.reset()
            quant.scale.fill_(50.0)
    data = DataLoader(case.source, batch_size=16)
    test_cfg = {"type": LOOPS["PTQLoop"], "calibrate_dataloader": data, "calibrate_steps": -1}
    loop = {"type": "QATEpochBasedLoop", "max_epochs": 1}
    more = {"test_cfg": test_cfg, "test_dataloader": data, "test_evaluator": [Right()]}
    runner, _ = run(network, case, tmp_path, loop, evaluator=True, **more)
    found = runner.test()
    close(runner)
    assert set(found) == {"qat.right", "original.right"}
    for group, params in network.params().items():
        if "weight" not in group:
            torch.testing.assert_close(params.scale, case.params[group].scale)
    state = torch.load(tmp_path / "model_ptq.pth", weights_only=True)
    assert any(key.endswith("scale") for key in state)
    phases.validation_phase(network)
