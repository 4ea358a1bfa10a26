"""What fake quants and batch norms do in the phases of a quantization-aware training."""

from __future__ import annotations

from torch import nn

from razordeploy.quantization.fake_quants.base import FakeQuantizeBase
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.qat.folded import FoldedLayer


def train_phase(model: nn.Module, *, observe: bool) -> None:
    """Values are rounded; learned scales are trained; the other ones follow what is observed, if ``observe``."""
    for quant in _fake_quants(model):
        if isinstance(quant, LearnableFakeQuantize):
            quant.enable_param_learning()
        else:
            quant.enable_fake_quant()
            quant.enable_observer(observe)


def validation_phase(model: nn.Module) -> None:
    """Values are rounded and no scale changes: what a checkpoint is written in."""
    for quant in _fake_quants(model):
        if isinstance(quant, LearnableFakeQuantize):
            quant.enable_val()
        else:
            quant.enable_fake_quant()
            quant.disable_observer()


def calibration_phase(model: nn.Module) -> None:
    """Values are observed as the float model has them: nothing is rounded."""
    for quant in _fake_quants(model):
        if isinstance(quant, LearnableFakeQuantize):
            quant.enable_static_estimate()
        else:
            quant.enable_observer()
        quant.disable_fake_quant()


def float_phase(model: nn.Module) -> None:
    """Nothing is rounded or observed: the float model of the same weights."""
    for quant in _fake_quants(model):
        if isinstance(quant, LearnableFakeQuantize):
            quant.enable_val()
        quant.disable_observer()
        quant.disable_fake_quant()


def freeze_norms(model: nn.Module, frozen: bool = True) -> None:
    """Let batch norms use their running statistics and leave them as they are."""
    for module in model.modules():
        if isinstance(module, FoldedLayer):
            module.frozen = frozen
        elif frozen and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def uninitialised(model: nn.Module) -> list[LearnableFakeQuantize]:
    """Learned fake quants that have no scale yet."""
    return [q for q in _fake_quants(model) if isinstance(q, LearnableFakeQuantize) and not q.initialized]


def _fake_quants(model: nn.Module) -> list[FakeQuantizeBase]:
    return [m for m in model.modules() if isinstance(m, FakeQuantizeBase)]
