"""Training by mmengine's Runner: it learns, resumes to the bit, and gives the same gradients on two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import nn

from razordeploy.config.qat import QATConfig
from razordeploy.errors import ModelError, RecipeError
from razordeploy.quantization.calibrate import Interrupted
from razordeploy.quantization.qat import phases
from razordeploy.quantization.qat.graph import QUANT, QATGraph
from razordeploy.quantization.qat.model import QATModel
from razordeploy.quantization.qat.train import (
    CHECKPOINT,
    Training,
    build_network,
    load_network,
    paramwise,
    train_network,
)
from tests.quantization.qat.conftest import Blobs, Case

pytestmark = [
    # Raised inside mmengine and torch while they import each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:mmengine"),
]
LOW = {"global_qconfig": {"w_qscheme": {"bit": 2}, "a_qscheme": {"bit": 3}}}


def trained(case: Case, folder: Path, stop_at: int | None = None, **options: Any) -> tuple[QATGraph, Training]:
    own = {key: options.pop(key) for key in ("resume", "teach", "losses", "amp", "source") if key in options}
    config = QATConfig.parse({"epochs": 3, "batch_size": 16, "lr": 0.02, "threads": 1, **options}, "test")
    steps: list[int] = []
    training = Training(
        config=config,
        source=own.pop("source", case.source),
        advance=lambda done, total: steps.append(done),
        stop=lambda: stop_at is not None and len(steps) == stop_at,
        **own,
    )
    network, notes = build_network(case.captured, case.plan, case.params, case.network_maker(), config)
    assert notes == []
    train_network(network, case.captured, training, folder)
    return network, training


def top1(network: Any, source: Blobs) -> float:
    with torch.no_grad():
        return float((network(source.images).argmax(1) == source.labels).float().mean())


@pytest.mark.parametrize("options", [{}, {"freeze_bn_begin": 3}, {"optimizer": "adamw", "lr": 3e-3}], ids=str)
def test_training_on_coarse_grids_helps(tmp_path, options):
    case = Case("academic", LOW)
    before = case.network().eval()
    network, _ = trained(case, tmp_path, epochs=6, **options)
    assert top1(network, case.source) >= max(0.9, top1(before, case.source))
    other = case.network(live_norms=bool(options.get("freeze_bn_begin")))
    load_network(other, tmp_path / CHECKPOINT)
    assert torch.equal(other.eval()(case.source.images), network.eval()(case.source.images))


@pytest.mark.parametrize("kind", ["learned", "observed"])
def test_a_resumed_run_ends_as_the_uninterrupted_one_to_the_bit(tmp_path, kind):
    fake_quants = {} if kind == "learned" else {"w_fake_quant": "FakeQuantize", "a_fake_quant": "FakeQuantize"}
    case = Case("openvino", {"global_qconfig": fake_quants})
    whole, _ = trained(case, tmp_path / "whole", freeze_bn_begin=2)
    with pytest.raises(Interrupted, match="epoch 1 of 3 is kept"):
        trained(case, tmp_path / "cut", stop_at=5, freeze_bn_begin=2)
    assert not (tmp_path / "cut" / CHECKPOINT).exists()
    resumed, _ = trained(case, tmp_path / "cut", resume=True, freeze_bn_begin=2)
    expected = whole.state_dict()
    assert any("observer" in key for key in expected)
    assert all(torch.equal(expected[key], value) for key, value in resumed.state_dict().items())


def test_interrupted_before_the_first_epoch_ends(tmp_path):
    with pytest.raises(Interrupted, match="no epoch is kept yet"):
        trained(Case(), tmp_path, stop_at=1)


def test_the_checkpoint_is_about_as_large_as_the_float_one(tmp_path):
    case = Case()
    trained(case, tmp_path, epochs=1)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    weights = sum(v.numel() for k, v in state.items() if QUANT not in k)
    assert weights <= sum(v.numel() for v in case.net.state_dict().values())


def test_bfloat16_trains_and_what_is_exported_is_float(tmp_path):
    case = Case()
    seen: list[torch.dtype] = []

    def losses(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        seen.append(outputs.dtype)
        return nn.functional.cross_entropy(outputs.float(), targets)

    network, _ = trained(case, tmp_path, amp=True, losses=losses)
    assert set(seen) == {torch.bfloat16}
    assert {v.dtype for k, v in network.trained_model(case.captured).graph_module.named_parameters()} == {torch.float32}
    assert top1(network, case.source) > 0.9


def test_the_float_model_teaches(tmp_path):
    case = Case("academic", LOW)
    seen: list[torch.Tensor] = []

    def teach(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        seen.append(teacher)
        return (student - teacher).square().mean()

    network, _ = trained(case, tmp_path, teach=teach, losses=lambda y, t: y.sum() * 0.0, epochs=8, lr=0.05)
    assert not any(t.requires_grad for t in seen)
    with torch.no_grad():
        wanted = case.captured.graph_module(case.source.images)
        untrained = case.network().eval()(case.source.images)
        found = network.eval()(case.source.images)
    assert (found - wanted).square().mean() < 0.7 * (untrained - wanted).square().mean()
    assert not any("teacher" in key for key in torch.load(tmp_path / CHECKPOINT, weights_only=True))


def test_scales_do_not_decay_and_move_little_under_adam():
    assert paramwise("sgd", None) == {"custom_keys": {QUANT: {"lr_mult": 1.0, "decay_mult": 0.0}}}
    assert paramwise({"type": "torch.optim.AdamW"}, None)["custom_keys"][QUANT]["lr_mult"] == 0.01
    assert paramwise("adamw", 0.5)["custom_keys"][QUANT]["lr_mult"] == 0.5


@pytest.mark.parametrize(
    ("outputs", "error"),
    [
        (lambda y, t: {"accuracy": y.mean()}, "expected a tensor or dict"),
        (lambda y, t: {"loss": y.mean() * float("nan")}, "the loss is nan"),
    ],
)
def test_a_loss_that_is_none_is_refused(tmp_path, outputs, error):
    with pytest.raises((RecipeError, ModelError), match=error):
        trained(Case(), tmp_path, losses=outputs)


def _one_process(rank: int, folder: str, count: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/group", rank=rank, world_size=count)
    gradients = _gradients(rank, count)
    torch.save(gradients, f"{folder}/{rank}.pth")
    torch.distributed.destroy_process_group()


def _gradients(rank: int, count: int) -> dict[str, torch.Tensor]:
    case = Case()
    network = case.network()
    phases.train_phase(network, observe=False)
    model: nn.Module = QATModel(network).train()
    images, labels = case.source.images[rank::count], case.source.labels[rank::count]
    wrapped = nn.parallel.DistributedDataParallel(model) if count > 1 else model
    wrapped(images, labels, mode="loss")["loss"].backward()
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def test_two_processes_have_the_gradients_of_one(tmp_path):
    torch.multiprocessing.start_processes(_one_process, (str(tmp_path), 2), nprocs=2, start_method="fork")
    expected = _gradients(0, 1)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert found.keys() == expected.keys()
        assert any(QUANT in key for key in found)
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
