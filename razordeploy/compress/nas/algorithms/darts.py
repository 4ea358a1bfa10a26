"""Differentiable architecture search."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.compress.algorithm.base import check_losses
from razordeploy.compress.algorithm.step import apply_gradients
from razordeploy.compress.nas.algorithms.base import SupernetAlgorithm
from razordeploy.compress.nas.supernets.darts_blocks import DartsZero
from razordeploy.errors import RecipeError
from razordeploy.subnet.mutables.diff_module import DiffMutableOP

_STEP = 0.01
"""Length of the finite difference, by that of the gradient (arXiv 1806.09055, footnote 2)."""


class TwoBatches(NamedTuple):
    """One batch for the weights and another for the architecture parameters."""

    weights: Any
    architecture: Any


class Darts(SupernetAlgorithm):
    """Learns a softmax mixture of operations on every edge (DARTS, Liu et al. 2019, arXiv 1806.09055).

    A step first moves the architecture parameters by a batch of their own, then the weights; each optimizer sees the
    gradients of its own parameters only.

    Args:
        architecture: as of ``SupernetAlgorithm``, and so are ``mutator``, ``norm_training``, ``data_preprocessor`` and
            ``init_cfg``; its mutables are differentiable.
        mutator: see there.
        unroll: second order: the architecture's gradient is that of the loss after one step of the weights' optimizer
            (equation 6), its last term by finite differences (equation 8). False takes the weights as they are.
        norm_training: see there.
        data_preprocessor: see there.
        init_cfg: see there.

    Raises:
        RecipeError: the weights' optimizer is not SGD, with ``unroll``; found in the first step.
    """

    decides_subnet = True

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        unroll: bool = False,
        norm_training: bool = False,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, mutator, norm_training, data_preprocessor, init_cfg)
        self.mutator.prepare_arch_params()
        self.unroll = unroll

    @property
    def arch_parameters(self) -> list[nn.Parameter]:
        """The architecture parameters."""
        return list(self.mutator.arch_params.values())

    @property
    def weights(self) -> list[nn.Parameter]:
        """The supernet's weights that are trained."""
        return [parameter for parameter in self.architecture.parameters() if parameter.requires_grad]

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the architecture parameters, one of the weights.

        Raises:
            RecipeError: there are not two batches, or not two optimizers.
        """
        if not isinstance(data, TwoBatches):
            raise RecipeError(
                "Darts: expected one batch for the weights and one for the architecture",
                hint="train_cfg=dict(type='DartsEpochBasedTrainLoop', max_epochs=50)",
            )
        weights, arch = two_optimizers(optim_wrapper)
        train, val = (self.data_preprocessor(batch, True) for batch in data)
        with weights.optim_context(self):
            if self.unroll:
                log = self._unrolled_backward(train, val, weights)
            else:
                log = self._backward(val, self.arch_parameters, arch)
            apply_gradients(arch)
            found = self._backward(train, self.weights, weights)
            apply_gradients(weights)
        return {**found, **{f"arch_{name}": value for name, value in log.items()}}

    def check_batch(self, data: Any) -> None:
        """Compute the losses of one batch as a training step would."""
        losses = self._run_forward(self.data_preprocessor(data, True), mode="loss")
        check_losses(self.parse_losses(losses))

    def decide(self) -> dict[str, Any]:
        """The most probable operation of each edge but zero (section 2.4), and the heaviest edges of each node."""
        choices = dict(self.mutator.sample_choices())
        for name, members in self.mutator.search_groups.items():
            parameter = self.mutator.arch_param_of(name)
            if isinstance(members[0], DiffMutableOP) and parameter is not None:
                operations = members[0]._candidates
                usable = [i for i, key in enumerate(operations) if not isinstance(operations[key], DartsZero)]
                values = parameter.detach().tolist()
                if usable:
                    choices[name] = members[0].choices[max(usable, key=values.__getitem__)]
        return choices

    def _loss(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        total, log = self.parse_losses(self._run_forward(batch, mode="loss"))
        return total, log

    def _backward(self, batch: Any, parameters: Sequence[nn.Parameter], wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Leave the gradient of the loss in ``parameters``, and in no others."""
        with _only(parameters, [*self.weights, *self.arch_parameters]):
            total, log = self._loss(batch)
            wrapper.backward(total)
        return log

    def _gradients(self, batch: Any, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Gradients of the loss, zero for what it does not depend on."""
        total, _ = self._loss(batch)
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]

    def _unrolled_backward(self, train: Any, val: Any, wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Leave the gradient of equation 6 in the architecture parameters.

        With w' = w - s(g), s the step of the optimizer and g the gradient of the training loss, it is
        dL_val(w')/da - c * d2L_train/(da dw) dL_val/dw', c = ds/dg. On several processes g and dL_val/dw' are averaged
        first, so that every process unrolls the same step.
        """
        weights, arch = self.weights, self.arch_parameters
        before = [w.detach().clone() for w in weights]
        with kept_statistics(self.architecture), _repeatable() as again:
            again()
            gradient = _averaged(self._gradients(train, weights))
            factors = self._move_by_virtual_step(weights, gradient, wrapper)
            again()
            total, log = self._loss(val)
            found = torch.autograd.grad(total, [*arch, *weights], allow_unused=True)
            full = [torch.zeros_like(p) if g is None else g for p, g in zip([*arch, *weights], found, strict=True)]
            direct, vector = full[: len(arch)], _averaged(full[len(arch) :])
            vector = [factor * part for factor, part in zip(factors, vector, strict=True)]
            _assign(weights, before)
            indirect = self._hessian_product(train, weights, vector, again)
            _assign(weights, before)
        for parameter, first, second in zip(arch, direct, indirect, strict=True):
            parameter.grad = first - second
        return log

    def _move_by_virtual_step(
        self, weights: Sequence[nn.Parameter], gradient: Sequence[Tensor], wrapper: OptimWrapper
    ) -> list[float]:
        """Move the weights as the optimizer's next step would, state apart; how much each moves by its gradient."""
        optimizer = wrapper.optimizer
        if not isinstance(optimizer, torch.optim.SGD):
            raise RecipeError(
                f"Darts: unroll follows the step of SGD, got {type(optimizer).__name__} for the weights",
                hint="optim_wrapper.architecture.optimizer=dict(type='SGD', lr=0.025, momentum=0.9)",
            )
        groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        factors = []
        with torch.no_grad():
            for weight, grad in zip(weights, gradient, strict=True):
                step, factor = _sgd_step(weight, grad, groups[id(weight)], optimizer.state.get(weight, {}))
                weight.sub_(step)
                factors.append(factor)
        return factors

    def _hessian_product(
        self, train: Any, weights: Sequence[nn.Parameter], vector: Sequence[Tensor], again: Any
    ) -> list[Tensor]:
        """The mixed second derivative of the training loss times ``vector``, by central differences (equation 8)."""
        arch = self.arch_parameters
        norm = float(torch.stack([part.double().square().sum() for part in vector]).sum().sqrt())
        if norm == 0.0:
            return [torch.zeros_like(p) for p in arch]
        step = _STEP / norm
        origin = [w.detach().clone() for w in weights]
        sides = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for weight, start, part in zip(weights, origin, vector, strict=True):
                    weight.copy_(start + sign * step * part)
            again()
            sides.append(self._gradients(train, arch))
        return [(plus - minus) / (2 * step) for plus, minus in zip(*sides, strict=True)]


def _sgd_step(weight: Tensor, grad: Tensor, group: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[Tensor, float]:
    """torch's SGD: what is subtracted from the weight, and its derivative by the gradient."""
    rate, momentum, dampening = group["lr"], group["momentum"], group["dampening"]
    change, factor = grad + group["weight_decay"] * weight, 1.0
    if momentum:
        buffer = state.get("momentum_buffer")
        fresh = 1.0 if buffer is None else 1.0 - dampening
        moved = fresh * change + (0.0 if buffer is None else momentum * buffer)
        if group["nesterov"]:
            change, factor = change + momentum * moved, 1.0 + momentum * fresh
        else:
            change, factor = moved, fresh
    return rate * change, rate * factor


def two_optimizers(optim_wrapper: Any) -> tuple[OptimWrapper, OptimWrapper]:
    """The optimizers of the weights and of the architecture parameters.

    Raises:
        RecipeError: there are none by these names.
    """
    if not isinstance(optim_wrapper, OptimWrapperDict) or not {"architecture", "mutator"} <= set(optim_wrapper.keys()):
        raise RecipeError(
            "expected an optimizer for the weights and one for the architecture parameters",
            hint="optim_wrapper=dict(constructor='SeparateOptimWrapperConstructor', architecture=..., mutator=...)",
        )
    return optim_wrapper["architecture"], optim_wrapper["mutator"]


@contextlib.contextmanager
def _only(trained: Iterable[nn.Parameter], every: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let nothing but ``trained`` gather gradients."""
    kept = {id(parameter) for parameter in trained}
    others = [parameter for parameter in every if id(parameter) not in kept and parameter.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in others:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Put the running statistics of batch norms back: the passes in between are of weights that nobody keeps."""
    norms = [part for part in model.modules() if isinstance(part, _BatchNorm) and part.running_mean is not None]
    saved = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, saved, strict=True):
            for name, value in buffers.items():
                getattr(norm, name).copy_(value)


@contextlib.contextmanager
def _repeatable() -> Iterator[Any]:
    """Gives a function after which the same random numbers are drawn: both sides of a difference drop the same."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        state, others = torch.random.get_rng_state(), [torch.cuda.get_rng_state(d) for d in devices]

        def again() -> None:
            torch.random.set_rng_state(state)
            for device, other in zip(devices, others, strict=True):
                torch.cuda.set_rng_state(other, device)

        yield again


def _averaged(tensors: Sequence[Tensor]) -> list[Tensor]:
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        for tensor in tensors:
            distributed.all_reduce(tensor)
            tensor /= distributed.get_world_size()
    return list(tensors)


def _assign(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
