"""Statistics of batch norms for one subnet: those that a supernet gathered are of all its subnets at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    run: Callable[[nn.Module, Any], object] | None = None,
    num_samples: int | None = None,
) -> int:
    """Set the running mean and variance of every batch norm to those of its inputs over ``batches``, in place.

    Mean and variance are over all samples together, whatever the sizes of the batches: the variance between batches
    counts too, which an average of the batches' variances leaves out. While they are gathered each norm uses the
    statistics of the batch. Parameters, modes and everything else stay as they are, so give it a copy of a model that
    others use.

    Args:
        model: a static subnet, or a supernet at its current choice.
        batches: whatever ``run`` takes; read once.
        run: calls the model on a batch; None: ``model(*batch.inputs)``.
        num_samples: read no further once so many samples were seen; None: all.

    Returns:
        Number of samples seen; 0, and nothing done, where the model has no batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and _has_statistics(module)]
    if not norms:
        return 0
    sums = {norm: _Sums() for norm in norms}
    handles = [norm.register_forward_pre_hook(sums[norm].take) for norm in norms]
    modes = [(module, module.training) for module in model.modules()]
    held = [
        (norm, norm.momentum, {name: value.clone() for name, value in norm.named_buffers(recurse=False)})
        for norm in norms
    ]
    seen = 0
    try:
        model.eval()
        for norm in norms:
            norm.train()
            norm.momentum = 0.0
        with torch.no_grad():
            for batch in batches:
                if num_samples is not None and seen >= num_samples:
                    break
                seen += len(batch)
                _run(model, batch) if run is None else run(model, batch)
    finally:
        for handle in handles:
            handle.remove()
        for norm, momentum, buffers in held:
            norm.momentum = momentum
            for name, value in norm.named_buffers(recurse=False):
                value.copy_(buffers[name])
        for module, training in modes:
            module.training = training
    for norm in norms:
        sums[norm].write(norm)
    return seen


def _has_statistics(norm: _BatchNorm) -> bool:
    return norm.running_mean is not None and norm.running_var is not None


def _run(model: nn.Module, batch: Any) -> None:
    model(*batch.inputs)


class _Sums:
    """Number, sum and sum of squared deviations by channel, in float64 (Chan et al. 1979, for batches)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Tensor | None = None
        self.spread: Tensor | None = None

    def take(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].detach().double().transpose(0, 1).flatten(1)
        count, mean = values.size(1), values.mean(1)
        spread = (values - mean[:, None]).square().sum(1)
        if self.mean is None or self.spread is None:
            self.count, self.mean, self.spread = count, mean, spread
            return
        total = self.count + count
        gap = mean - self.mean
        self.spread = self.spread + spread + gap.square() * (self.count * count / total)
        self.mean = self.mean + gap * (count / total)
        self.count = total

    def write(self, norm: _BatchNorm) -> None:
        # A norm that was not reached (another path of the supernet) keeps its statistics.
        if self.mean is None or self.spread is None or norm.running_mean is None or norm.running_var is None:
            return
        where: Any = slice(None)
        if self.mean.numel() < norm.running_mean.numel():
            # An elastic norm that runs sliced is fed the channels that are kept.
            where = norm.mask_of("num_features")  # type: ignore[operator]
        norm.running_mean[where] = self.mean.to(norm.running_mean)
        norm.running_var[where] = (self.spread / self.count).to(norm.running_var)
