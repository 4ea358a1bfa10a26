"""How much the outputs suffer when one layer's weight gets fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional
from torch.utils import _pytree as pytree

from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.quantization.qat.graph import with_tensors

Rounded = Callable[[str, int], Tensor]
"""``(target of a weight, bits) -> the weight on the grid of that width``."""
Inputs = Sequence[tuple[Tensor, ...]]


def hessian_harms(
    captured: CapturedModel,
    rounded: Rounded,
    targets: Sequence[str],
    bits: Sequence[int],
    inputs: Inputs,
    *,
    probes: int = 8,
    seed: int = 0,
) -> dict[str, dict[int, float]]:
    """``mean eigenvalue of H * |Q(W) - W|^2`` for each weight and width (HAWQ-V2, Dong et al. 2020, equation 9)."""
    traces = hessian_traces(captured, targets, inputs, probes=probes, seed=seed)
    found: dict[str, dict[int, float]] = {}
    for target in targets:
        weight = attribute(captured.graph_module, target).detach()
        curvature = max(0.0, traces[target]) / weight.numel()
        found[target] = {b: curvature * float((rounded(target, b) - weight).double().square().sum()) for b in bits}
    return found


def hessian_traces(
    captured: CapturedModel, targets: Sequence[str], inputs: Inputs, *, probes: int = 8, seed: int = 0
) -> dict[str, float]:
    """Trace of the Hessian of the loss by each weight, estimated with random signs (Hutchinson).

    The loss is the divergence from the model's own outputs: for logits ``KL(p || softmax(z))``, else half the squared
    distance. Its gradient is zero here, so that the Hessian is the Fisher information and no label is needed.

    Args:
        captured: the float graph.
        targets: names of the weights' nodes' targets.
        inputs: batches of input tensors; the mean over them is returned.
        probes: random vectors a batch; the error falls with their square root.
        seed: of the vectors.
    """
    module = _leaves(captured, targets)
    weights = [attribute(module, target) for target in targets]
    generator = torch.Generator().manual_seed(seed)
    sums = dict.fromkeys(targets, 0.0)
    for batch in inputs:
        loss = torch.stack([_own_divergence(y) for y in _outputs(module(*batch))]).sum()
        gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        used = [(t, w, g) for t, w, g in zip(targets, weights, gradients, strict=True) if g is not None]
        for _ in range(probes):
            signs = [_signs(w, generator) for _, w, _ in used]
            total = torch.stack([(g * v).sum() for (_, _, g), v in zip(used, signs, strict=True)]).sum()
            products = torch.autograd.grad(total, [w for _, w, _ in used], retain_graph=True, allow_unused=True)
            for (target, _, _), v, product in zip(used, signs, products, strict=True):
                sums[target] += 0.0 if product is None else float((v * product).double().sum())
    return {target: value / (probes * len(inputs)) for target, value in sums.items()}


def divergence_harms(
    captured: CapturedModel, rounded: Rounded, targets: Sequence[str], bits: Sequence[int], inputs: Inputs
) -> dict[str, dict[int, float]]:
    """Divergence of the outputs when one weight alone is rounded: KL for logits (N, classes), else squared distance."""
    found: dict[str, dict[int, float]] = {target: {} for target in targets}
    with torch.inference_mode():
        wanted = [_outputs(captured.graph_module(*batch)) for batch in inputs]
        for target in targets:
            for width in bits:
                module = with_tensors(captured, {target: rounded(target, width)}).graph_module
                pairs = zip(inputs, wanted, strict=True)
                parts = [
                    _divergence(y, z)
                    for batch, before in pairs
                    for y, z in zip(before, _outputs(module(*batch)), strict=True)
                ]
                found[target][width] = max(0.0, float(torch.stack(parts).mean()))
    return found


def monotone(harms: Mapping[str, Mapping[int, float]]) -> dict[str, dict[int, float]]:
    """The harms with no width worse than a narrower one, which only noise could make it."""
    found = {}
    for target, by_bits in harms.items():
        worst, kept = float("inf"), {}
        for width in sorted(by_bits):
            worst = min(worst, by_bits[width])
            kept[width] = worst
        found[target] = kept
    return found


def _leaves(captured: CapturedModel, targets: Sequence[str]) -> fx.GraphModule:
    """A copy of the graph in which exactly the weights ``targets`` ask for a gradient."""
    copies = {t: attribute(captured.graph_module, t).detach().clone() for t in targets}
    module = with_tensors(captured, copies).graph_module
    module.requires_grad_(False)
    for target in targets:
        attribute(module, target).requires_grad_(True)
    return module


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, like.shape, generator=generator).to(like.dtype).mul_(2).sub_(1)


def _outputs(value: Any) -> list[Tensor]:
    return [y for y in pytree.tree_leaves(value) if isinstance(y, Tensor) and y.is_floating_point()]


def _own_divergence(y: Tensor) -> Tensor:
    return _divergence(y.detach(), y)


def _divergence(wanted: Tensor, found: Tensor) -> Tensor:
    if wanted.dim() == 2 and wanted.shape[1] > 1:
        return functional.kl_div(
            functional.log_softmax(found, 1), functional.log_softmax(wanted, 1), reduction="batchmean", log_target=True
        )
    return (found - wanted).square().sum() / (2 * max(1, len(wanted)))
