"""AdaRound, BRECQ, QDrop and block-wise LSQ: which parts are reconstructed, and what is learned in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import fx

from razordeploy.errors import RecipeError
from razordeploy.quantization.algorithms.blocks import Part, blocks, single_layers
from razordeploy.quantization.algorithms.data import Work
from razordeploy.quantization.algorithms.layers import weight_points
from razordeploy.quantization.algorithms.reconstruction import (
    Options,
    mean_log_gain,
    reconstruct,
    rounded_values,
)
from razordeploy.quantization.algorithms.walk import Values, Walk
from razordeploy.quantization.draft import Draft


@dataclass(frozen=True, kw_only=True)
class _Reconstruction:
    samples: int = 512
    """Samples to learn from."""
    steps: int = 300
    """Optimiser steps a layer or block."""
    lr: float = 0.1
    """Learning rate of the rounding variables."""

    def __post_init__(self) -> None:
        for key in ("samples", "steps"):
            if getattr(self, key) < 1:
                raise RecipeError(f"{type(self).__name__}: expected {key} of 1 or more, got {getattr(self, key)}")
        if not 0 < self.lr < float("inf"):
            raise RecipeError(f"{type(self).__name__}: expected a positive lr, got {self.lr}")


@dataclass(frozen=True, kw_only=True)
class AdaRound(_Reconstruction):
    """Learned rounding, layer by layer, each with the activation function behind it (Nagel et al. 2020)."""

    regularization: float = 2.0
    """Weight of f_reg beside the error relative to that of nearest rounding (lambda of equation 21)."""

    def apply(self, draft: Draft, work: Work) -> None:
        """Change the draft's weights to values that nearest rounding keeps."""
        options = Options(
            steps=self.steps,
            lr=self.lr,
            scale_lr=0.0,
            learn="rounding",
            learn_activations=False,
            drop=0.0,
            regularization=self.regularization,
        )
        _each(
            draft, work, self.samples, options, lambda wanted: single_layers(draft.captured.graph, wanted), "AdaRound"
        )


@dataclass(frozen=True, kw_only=True)
class BRECQ(_Reconstruction):
    """Learned rounding and activation scales, block by block (Li et al. 2021)."""

    drop: float = 0.0
    """Probability with which an activation stays unrounded in a step; QDrop's is 0.5."""
    scale_lr: float = 1e-3
    """Learning rate of activation scales, relative to the scale; 0 keeps them."""
    max_layers: int = 8
    """A block of more layers is treated layer by layer."""
    regularization: float = 2.0
    """Weight of f_reg beside the error relative to that of nearest rounding."""
    fisher: bool = True
    """True: errors of a block count by the squared gradients of the model's loss (equation 10); False: all alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.drop < 1:
            raise RecipeError(f"{type(self).__name__}: expected drop from 0 up to 1, got {self.drop}")

    def apply(self, draft: Draft, work: Work) -> None:
        """Change the draft's weights and activation scales."""
        options = Options(
            steps=self.steps,
            lr=self.lr,
            scale_lr=self.scale_lr,
            learn="rounding",
            learn_activations=self.scale_lr > 0,
            drop=self.drop,
            regularization=self.regularization,
            fisher=self.fisher,
        )
        _each(draft, work, self.samples, options, lambda wanted: _blocks(draft, wanted, self.max_layers), "BRECQ")


@dataclass(frozen=True, kw_only=True)
class QDrop(BRECQ):
    """BRECQ whose steps leave half of the activations unrounded (Wei et al. 2022), all errors alike as there."""

    drop: float = 0.5
    fisher: bool = False


@dataclass(frozen=True, kw_only=True)
class LSQFinetune(_Reconstruction):
    """Weights and all scales of a block trained together, block by block, by LSQ's gradients (Esser et al. 2020)."""

    lr: float = 0.02
    """Learning rate of the weights, in steps of their grid."""
    scale_lr: float = 1e-3
    """Learning rate of scales, relative to the scale."""
    max_layers: int = 8
    """A block of more layers is treated layer by layer."""

    def apply(self, draft: Draft, work: Work) -> None:
        """Change the draft's weights and scales."""
        options = Options(
            steps=self.steps, lr=self.lr, scale_lr=self.scale_lr, learn="weights", learn_activations=True, drop=0.0
        )
        _each(draft, work, self.samples, options, lambda wanted: _blocks(draft, wanted, self.max_layers), "LSQ")


def _blocks(draft: Draft, wanted: set[str], max_layers: int) -> Iterable[Part]:
    return blocks(draft.captured.graph, wanted, max_layers)


def _each(
    draft: Draft,
    work: Work,
    samples: int,
    options: Options,
    cut: Callable[[set[str]], Iterable[Part]],
    name: str,
) -> None:
    """Reconstruct every part in execution order, each on what the parts before it now give."""
    parts = list(cut(set(weight_points(draft.plan))))
    starts: dict[fx.Node, list[Part]] = {}
    for part in parts:
        starts.setdefault(part.nodes[0], []).append(part)
    ends = {part.output: part for part in parts}
    held: dict[Part, dict[fx.Node, tuple[Values, Values]]] = {}
    walk = Walk(draft, work, limit=samples)
    gains: list[float] = []
    left = 0

    def before(node: fx.Node) -> None:
        for part in starts.get(node, ()):
            held[part] = {}
        for part, values in held.items():
            for source in part.inputs:
                if node in source.users and source not in values:
                    values[source] = (walk.floats[source], walk.rounded[source])

    def after(node: fx.Node) -> None:
        nonlocal left
        part = ends.get(node)
        if part is None:
            return
        if work.over:
            left += 1
            held.pop(part)
            return
        work.tell(f"{name}: {len(gains) + 1} of {len(parts)}")
        inputs = held.pop(part)
        gains.append(reconstruct(walk, part, inputs, options))
        walk.rounded[node] = rounded_values(walk, part, inputs)

    walk.run(before=before, after=after)
    draft.refresh()
    rest = f", the time was up before {left} others" if left else ""
    work.notes.append(f"{name}: {len(gains)} parts, {mean_log_gain(gains):.1f} dB on average{rest}")
