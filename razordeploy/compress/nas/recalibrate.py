"""Batch norm statistics of a subnet, from calibration data."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.data.batch import Batch
from razordeploy.errors import DataError, ModelError
from razordeploy.subnet.fix import export_fix_subnet

Forward = Callable[[nn.Module, Any], Any]
"""Runs a model on one batch."""


def recalibrate(
    model: nn.Module, batches: Iterable[Any], *, num_samples: int | None = None, forward: Forward | None = None
) -> int:
    """Set the running statistics of every batch norm that runs, in place.

    They become the mean and the variance of the layer's input over all samples and positions, as if the calibration
    data were one batch: between-batch differences of the means count. While the data pass, batch norms normalise by
    the batch, as in training, and everything else is in eval mode. On several processes the statistics are those of
    the data of all of them.

    Args:
        model: a static subnet; a supernet, whose other subnets want other statistics, is better left as it is.
        batches: tensors, tuples of tensors, ``Batch``, or what ``forward`` takes.
        num_samples: stop once so many samples have been seen by this process; None: use all.
        forward: how one batch is run; None: the model is called with its inputs.

    Returns:
        Samples that this process has seen.

    Raises:
        DataError: there is no batch.
        ModelError: a batch norm saw values that are not finite.
    """
    norms = {name: part for name, part in model.named_modules() if _tracks(part)}
    moments = {name: _Moments() for name in norms}
    seen = 0
    with _watching(model, norms, moments), torch.no_grad():
        for batch in batches:
            if num_samples is not None and seen >= num_samples:
                break
            (forward or _call)(model, batch)
            seen += _length(batch)
    if seen == 0:
        raise DataError("expected calibration data for batch norms, got no batch")
    for name, norm in norms.items():
        moment = moments[name].over_all_processes(norm.running_mean)
        if moment is None:
            continue
        mean, variance = moment
        if not bool(mean.isfinite().all() and variance.isfinite().all()):
            raise ModelError(f"batch norm '{name}' saw values that are not finite while it was calibrated")
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
    return seen


def calibrated_subnet(
    architecture: nn.Module,
    batches: Iterable[Any],
    *,
    num_samples: int | None = None,
    forward: Forward | None = None,
) -> tuple[dict[str, Any], nn.Module]:
    """The subnet that ``architecture`` has chosen, sliced to a plain model of its own and recalibrated.

    What is measured on the returned model is what the exported subnet has: it is the one that is saved. The supernet
    stays as it is.

    Args:
        architecture: the supernet, or an algorithm that holds it.
        batches: as of ``recalibrate``, and so are ``num_samples`` and ``forward``.
        num_samples: see there.
        forward: see there.

    Returns:
        The subnet as a file holds it, and the static model in eval mode.
    """
    subnet, static = export_fix_subnet(architecture, "mutable", slice_weight=True)
    assert static is not None
    recalibrate(static, batches, num_samples=num_samples, forward=forward)
    return subnet, static.eval()


class _Moments:
    """Count, mean and summed squared deviation by channel, merged batch by batch (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.count = 0.0
        self.mean: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Take one input (N, C, ...) of the layer."""
        values = x.detach().double().transpose(0, 1).flatten(1)
        mean = values.mean(1)
        self._merge(float(values.shape[1]), mean, (values - mean[:, None]).square().sum(1))

    def _merge(self, count: float, mean: Tensor, squares: Tensor) -> None:
        if self.mean is None or self.squares is None:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + squares + delta.square() * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def over_all_processes(self, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """Mean and variance; None where the layer never ran."""
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            zeros = torch.zeros(like.shape, dtype=torch.float64, device=like.device)
            count = torch.tensor([self.count], dtype=torch.float64, device=like.device)
            mean = zeros if self.mean is None else self.mean
            total, summed = count.clone(), mean * count
            distributed.all_reduce(total)
            distributed.all_reduce(summed)
            overall = summed / total.clamp(min=1.0)
            squares = (zeros if self.squares is None else self.squares) + count * (mean - overall).square()
            distributed.all_reduce(squares)
            self.count, self.mean, self.squares = float(total), overall, squares
        if self.mean is None or self.squares is None or self.count == 0:
            return None
        return self.mean, self.squares / self.count


def _tracks(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None


@contextlib.contextmanager
def _watching(model: nn.Module, norms: dict[str, Any], moments: dict[str, _Moments]) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    counts = {name: norm.num_batches_tracked for name, norm in norms.items()}
    counts = {name: None if count is None else count.clone() for name, count in counts.items()}
    handles = []
    try:
        model.eval()
        for name, norm in norms.items():
            norm.training = True
            # Bound as a default: the loop's variable changes.
            handles.append(norm.register_forward_pre_hook(lambda _, x, moment=moments[name]: moment.add(x[0])))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode
        for name, count in counts.items():
            if count is not None:
                norms[name].num_batches_tracked.copy_(count)


def _call(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Batch):
        return model(*batch.inputs)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def _length(batch: Any) -> int:
    if isinstance(batch, dict):
        return len(batch["inputs"])
    if isinstance(batch, tuple | list):
        return len(batch[0])
    return len(batch)
