"""What rounding for each operation adds to the model's outputs, of all operations at once, from a few gradients.

For errors e of the values and outputs y, ``v . (y_q - y)`` is the sum over all values of the integral over t of
``(dy/dx at t)^T v . e``, t the share of the errors that is added (integrated gradients; Sundararajan et al. 2017). With
v of independent signs the expected square of a value's part is the power of the noise that it puts on the outputs.
Gradients of the float model alone (t = 0) say too much of what kinks behind a value make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from razordeploy.capture.fast import fast_copy, fast_input
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.plan import QParams
from razordeploy.quantization.qparams import fake_quantize
from razordeploy.quantization.sensitivity import owners_of
from razordeploy.quantization.simulate import graph_copy

_SHARES = (0.125, 0.375, 0.625, 0.875)
"""Where the integral is taken: the middles of four parts of it."""

Reading = tuple[str, str]
"""``(node of a point, its user)``."""


@dataclass(kw_only=True)
class _Pass:
    """What one run of the graph adds to its values, and what its gradients say of that."""

    share: float = 0.0
    parts: dict[Reading, float] = field(default_factory=dict)


def output_noise(
    draft: Draft,
    batches: Iterable[tuple[Tensor, ...]],
    *,
    seed: int = 0,
    pause: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Power of the noise that each int8 operation's rounding, of its weight and its inputs, puts on the outputs.

    To first order of every part alone, which ranks operations as well as quantizing one after the other does, in the
    time of a dozen runs of the model. Of several outputs the relative powers are added.

    Args:
        draft: graph, plan and scales.
        batches: few samples, best of one each: every batch draws one v.
        seed: of v.
        pause: called often; raises where the run was asked to end.

    Returns:
        Node of an operation -> power of the noise, relative to that of the outputs; 0 where nothing arrives.

    Raises:
        RuntimeError: torch has no derivative of one of the graph's operations.
    """
    now = _Pass()
    module = _watched(draft, now)
    generator = torch.Generator().manual_seed(seed)
    totals: list[dict[Reading, float]] = []
    for inputs in batches:
        totals.append({})
        signs: list[Tensor] | None = None
        for share in _SHARES:
            pause()
            now.share, now.parts = share, totals[-1]
            signs = _run(module, inputs, signs, generator)
    return _by_operation(draft, totals)


def _run(
    module: fx.GraphModule, inputs: tuple[Tensor, ...], signs: list[Tensor] | None, generator: torch.Generator
) -> list[Tensor]:
    """One run and its gradients; return the vectors that the outputs were multiplied with, ``signs`` where given."""
    with torch.enable_grad():
        leaves = pytree.tree_leaves(module(*map(_watchable, inputs)))
        outputs = [y for y in leaves if isinstance(y, Tensor) and y.requires_grad]
        if signs is None:
            signs = [_signs(y, generator) for y in outputs]
        if outputs:
            torch.autograd.backward(outputs, signs)
    return signs


def _watchable(x: Tensor) -> Tensor:
    """Everything behind it has gradients: a fast linear layer has none of its weight where its input has none."""
    laid_out = fast_input(x).detach()
    return laid_out.requires_grad_().clone() if laid_out.is_floating_point() else laid_out


def _signs(output: Tensor, generator: torch.Generator) -> Tensor:
    """Random signs over the output's norm: their product with a noise has the noise's relative power as variance."""
    signs = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1.0
    norm = output.detach().double().norm().clamp(min=torch.finfo(torch.float32).tiny)
    return (signs / norm).to(output.dtype)


def _by_operation(draft: Draft, totals: list[dict[Reading, float]]) -> dict[str, float]:
    owners = owners_of(draft)
    readings: dict[str, list[Reading]] = {op.node: [] for op in draft.plan.ops if op.int8}
    for reading in ((point.node, user) for point in draft.plan.points for user in point.users):
        for op in owners[reading] & readings.keys():
            readings[op].append(reading)

    def power(own: list[Reading]) -> float:
        parts = (sum(total.get(reading, 0.0) for reading in own) / len(_SHARES) for total in totals)
        return sum(part * part for part in parts) / max(len(totals), 1)

    return {op: power(own) for op, own in readings.items()}


def _watched(draft: Draft, now: _Pass) -> fx.GraphModule:
    """The float graph; what is read through a grid passes a ``_Watch``."""
    module, by_name = graph_copy(draft.float_model())
    _without_gradients(module)
    graph = module.graph
    for i, point in enumerate(draft.plan.points):
        value, grid = by_name[point.node], draft.params[point.group]
        if point.kind == "weight":
            error = _weight_error(draft, point.node, grid)
            module.register_buffer(f"_error_{i}", error)
            with graph.inserting_after(value):
                noise = graph.get_attr(f"_error_{i}")
        else:
            module.add_submodule(f"_error_{i}", _Error(grid))
            with graph.inserting_after(value):
                noise = graph.call_module(f"_error_{i}", (value,))
        for j, user in enumerate(point.users):
            module.add_submodule(f"_watch_{i}_{j}", _Watch((point.node, user), now))
            with graph.inserting_after(noise):
                read = graph.call_module(f"_watch_{i}_{j}", (value, noise))
            by_name[user].replace_input_with(value, read)
    module.recompile()
    return fast_copy(module)


def _without_gradients(module: fx.GraphModule) -> None:
    """Give ``module`` parameters of its own, of the same values: the model's collect no gradients here."""
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            setattr(owner, name, nn.Parameter(parameter.detach(), requires_grad=False))


def _weight_error(draft: Draft, name: str, grid: QParams) -> Tensor:
    node = draft.node(name)
    return (fake_quantize(draft.constant(node), grid) - draft.float_constant(node)).detach()


class _Error(nn.Module):
    """What rounding a value changes."""

    def __init__(self, grid: QParams) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return fake_quantize(x, self.grid) - x


class _Watch(nn.Module):
    """Adds a share of the error to a value, and the product of gradient and error to the run's parts."""

    def __init__(self, reading: Reading, now: _Pass) -> None:
        super().__init__()
        self.reading, self.now = reading, now

    def forward(self, x: Tensor, error: Tensor) -> Tensor:
        start = x if x.requires_grad else x.detach().requires_grad_()
        watched: Tensor = _Product.apply(start, error, self.now.share, self.add)
        return watched

    def add(self, part: float) -> None:
        self.now.parts[self.reading] = self.now.parts.get(self.reading, 0.0) + part


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, error: Tensor, share: float, add: Callable[[float], None]) -> Tensor:
        ctx.save_for_backward(error)
        ctx.add = add
        return x + share * error

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (error,) = ctx.saved_tensors
        ctx.add(float((grads[0] * error).sum()))
        return grads[0], None, None, None
