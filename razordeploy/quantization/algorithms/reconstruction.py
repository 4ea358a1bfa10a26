"""Learn rounding, weights or scales so that a part of the network gives what its float twin gives.

AdaRound (Nagel et al. 2020, equation 25) treats one layer after the other; BRECQ (Li et al. 2021, equation 10) treats
residual blocks, and weighs errors by the Fisher information; QDrop (Wei et al. 2022, section 4.2) leaves activations at
random unrounded; with learned scales it is the block-wise fine-tuning of LSQ (Esser et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from razordeploy.quantization.algorithms.blocks import Part
from razordeploy.quantization.algorithms.fisher import fisher_weights
from razordeploy.quantization.algorithms.layers import Layer, layer_of
from razordeploy.quantization.algorithms.rounding import SoftRounding, beta_at
from razordeploy.quantization.algorithms.walk import Values, Walk
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.plan import QuantPoint
from razordeploy.quantization.qparams import fake_quantize


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is learned, and for how long."""

    steps: int
    """Optimiser steps a part."""
    lr: float
    """Of Adam, for rounding variables; for weights relative to their scale."""
    scale_lr: float
    """Of Adam, for scales, relative to the scale."""
    learn: str
    """``rounding``: up or down; ``weights``: the weights and their scales; ``scales``: nothing else."""
    learn_activations: bool
    """True: scales of the activations inside the part too."""
    drop: float
    """Probability with which an activation value stays unrounded in a step."""
    regularization: float = 2.0
    """Weight of f_reg beside the error relative to that of nearest rounding: lambda of equation 21, in units that do
    not depend on the range of the outputs."""
    fisher: bool = False
    """True: squared errors count by the squared gradients of the model's loss (BRECQ, equation 10)."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a part is to give."""

    targets: Values
    """Its output in the float model, one entry a batch."""
    weights: Values | None = None
    """How much each element's squared error counts, in the same shapes; None: all alike."""

    def loss(self, found: Tensor, batch: int) -> Tensor:
        """Squared error, weighed, summed over channels and averaged over samples and places."""
        square = (found - self.targets[batch]).square()
        if self.weights is not None:
            square = square * self.weights[batch]
        return square.mean() * _channels(square)

    def error(self, found: Tensor, batch: int) -> float:
        """The weighed squared error's sum."""
        square = (found - self.targets[batch]).double().square()
        if self.weights is not None:
            square = square * self.weights[batch]
        return float(square.sum())


@dataclass(kw_only=True)
class _Learned:
    """Trainable stand-ins for one part's weights and grids."""

    weights: dict[fx.Node, SoftRounding] = field(default_factory=dict)
    """By the weight's node."""
    values: dict[fx.Node, nn.Parameter] = field(default_factory=dict)
    """Weights that are trained themselves."""
    grids: dict[str, LearnableFakeQuantize] = field(default_factory=dict)
    """By group."""


def reconstruct(walk: Walk, part: Part, held: Mapping[fx.Node, tuple[Values, Values]], options: Options) -> float:
    """Learn one part's stand-ins and write them into the draft; return the error left, relative to the error before.

    Args:
        walk: at the part's output, whose float values it has.
        part: the operations.
        held: input -> its values in the float and in the quantized model, one entry a batch.
        options: what is learned.
    """
    draft = walk.draft
    learned = _stand_ins(walk, part, options)
    if not (learned.weights or learned.values or learned.grids):
        return 1.0
    targets = walk.floats[part.output]
    goal = Goal(targets=targets, weights=fisher_weights(walk, part.output) if options.fisher else None)
    before = _error(walk, part, held, goal)
    if before == 0:
        return 1.0
    kept = _snapshot(draft, learned)
    unit = before / sum(t.numel() // _channels(t) for t in targets)
    _train(walk, part, held, goal, learned, options, unit)
    _write(draft, learned)
    after = _error(walk, part, held, goal)
    if after > before:  # never worse than what was there
        _restore(draft, kept)
        return 1.0
    return after / before


def run_part(
    part: Part,
    inputs: Mapping[fx.Node, Any],
    read: Callable[[fx.Node, fx.Node, Any], Any],
    constant: Callable[[fx.Node], Tensor],
) -> Any:
    """Run a part's operations; ``read(source, user, value)`` gives each value as its user reads it."""
    env: dict[fx.Node, Any] = dict(inputs)

    for node in part.nodes:

        def value(source: fx.Node, node: fx.Node = node) -> Any:
            found = constant(source) if source.op == "get_attr" else env[source]
            return read(source, node, found)

        args: Any = fx.map_arg(node.args, value)
        kwargs: Any = fx.map_arg(node.kwargs, value)
        env[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return env[part.output]


def _stand_ins(walk: Walk, part: Part, options: Options) -> _Learned:
    draft, learned = walk.draft, _Learned()
    inside = {n.name for n in part.nodes}
    for node in part.nodes:
        layer = layer_of(node)
        point = walk.points.get((layer.weight.name, node.name)) if layer is not None else None
        if layer is None or point is None or len(layer.weight.users) != 1:
            continue
        q = draft.params[point.group]
        if options.learn == "rounding":
            learned.weights[layer.weight] = SoftRounding(draft.constant(layer.weight), q)
        elif options.learn == "weights":
            learned.values[layer.weight] = nn.Parameter(draft.constant(layer.weight).clone())
            learned.grids[point.group] = _learnable(draft, point)
    if options.learn_activations:
        for point in draft.plan.points:
            others = [p for p in draft.plan.points if p.group == point.group]
            if point.kind == "activation" and all(set(p.users) <= inside for p in others):
                learned.grids[point.group] = _learnable(draft, point)
    return learned


def _learnable(draft: Draft, point: QuantPoint) -> LearnableFakeQuantize:
    grid = LearnableFakeQuantize(scheme=point.scheme)
    grid.set_qparams(draft.params[point.group])
    grid.enable_param_learning()
    return grid


@torch.enable_grad()
def _train(
    walk: Walk,
    part: Part,
    held: Mapping[fx.Node, tuple[Values, Values]],
    goal: Goal,
    learned: _Learned,
    options: Options,
    unit: float,
) -> None:
    """``unit``: the loss of the draft as it is."""
    draft = walk.draft
    generator = torch.Generator().manual_seed(walk.work.seed)
    optimizer = torch.optim.Adam(_parameters(walk, learned, options))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    order: list[int] = []

    def constant(source: fx.Node) -> Tensor:
        if source in learned.weights:
            return learned.weights[source]()
        return learned.values[source] if source in learned.values else draft.constant(source)

    def read(source: fx.Node, user: fx.Node, value: Any) -> Any:
        point = walk.points.get((source.name, user.name))
        if point is None or source in learned.weights:
            return value
        grid = learned.grids.get(point.group)
        rounded = fake_quantize(value, draft.params[point.group]) if grid is None else grid(value)
        return _dropped(value, rounded, options.drop, generator) if point.kind == "activation" else rounded

    for step in range(options.steps):
        walk.work.pause()
        order = order or torch.randperm(len(goal.targets), generator=generator).tolist()
        i = order.pop()
        inputs = {
            source: _dropped(floats[i], rounded[i], options.drop, generator)
            for source, (floats, rounded) in held.items()
        }
        loss = goal.loss(run_part(part, inputs, read, constant), i) / unit
        beta = beta_at(step, options.steps)
        if beta is not None and learned.weights:
            penalty = torch.stack([w.regularizer(beta) for w in learned.weights.values()]).sum()
            loss = loss + options.regularization * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _parameters(walk: Walk, learned: _Learned, options: Options) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = [{"params": [w.v], "lr": options.lr} for w in learned.weights.values()]
    scales = {g: float(q.scale.detach().abs().mean()) for g, q in learned.grids.items()}
    groups += [{"params": [q.scale], "lr": options.scale_lr * scales[g]} for g, q in learned.grids.items()]
    for node, value in learned.values.items():
        user = next(iter(node.users))
        group = walk.points[(node.name, user.name)].group
        groups.append({"params": [value], "lr": options.lr * scales[group]})
    return groups


def _dropped(value: Any, rounded: Any, drop: float, generator: torch.Generator) -> Any:
    """Each element rounded, or with probability ``drop`` left as it is (QDrop, equation 8)."""
    if drop <= 0 or not isinstance(value, Tensor) or not value.is_floating_point():
        return rounded
    return torch.where(torch.rand(value.shape, generator=generator) < drop, value, rounded)


def _channels(value: Tensor) -> int:
    return int(value.shape[1] if value.dim() in (2, 4, 5) else value.shape[-1])


@torch.no_grad()
def _error(
    walk: Walk,
    part: Part,
    held: Mapping[fx.Node, tuple[Values, Values]],
    goal: Goal,
    store: Values | None = None,
) -> float:
    """Squared error of the part as the draft rounds it; its values are appended to ``store``."""
    total = 0.0
    for i in range(len(goal.targets)):
        inputs = {source: rounded[i] for source, (_, rounded) in held.items()}
        found = run_part(part, inputs, walk.on_grid, walk.draft.constant)
        total += goal.error(found, i)
        if store is not None:
            store.append(found)
    return total


def rounded_values(walk: Walk, part: Part, held: Mapping[fx.Node, tuple[Values, Values]]) -> Values:
    """Values of the part's output as the draft rounds them now."""
    found: Values = []
    _error(walk, part, held, Goal(targets=walk.floats[part.output]), found)
    return found


@torch.no_grad()
def _write(draft: Draft, learned: _Learned) -> None:
    for group, grid in learned.grids.items():
        draft.params[group] = grid.qparams
    for node, soft in learned.weights.items():
        draft.set_constant(node, soft.rounded())
    for node, value in learned.values.items():
        draft.set_constant(node, value)


def _snapshot(draft: Draft, learned: _Learned) -> tuple[dict[fx.Node, Tensor], dict[str, Any]]:
    constants = {n: draft.constant(n) for n in (*learned.weights, *learned.values)}
    return constants, {g: draft.params[g] for g in learned.grids}


def _restore(draft: Draft, kept: tuple[dict[fx.Node, Tensor], dict[str, Any]]) -> None:
    constants, grids = kept
    draft.params.update(grids)
    for node, value in constants.items():
        draft.set_constant(node, value)


def mean_log_gain(ratios: list[float]) -> float:
    """Mean gain of the parts' SQNR in dB."""
    return sum(-10 * math.log10(max(r, 1e-12)) for r in ratios) / len(ratios) if ratios else 0.0


def layer_part(layer: Layer) -> Part:
    """A part of one layer alone."""
    return Part(nodes=(layer.node,))
