"""How much each element of a value counts for what the model says: the diagonal of the Fisher information.

Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", 2021, equations 9 and 10:
the Hessian of the task's loss with respect to a block's outputs z is taken as ``diag((dL/dz_1)^2, ...)``. No labels are
needed: the Fisher information has them drawn from the model's own distribution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from razordeploy.quantization.algorithms.walk import Values, Walk

DRAWS = 8
"""Labels or signs that are drawn for every sample."""


def fisher_weights(walk: Walk, node: fx.Node, draws: int = DRAWS) -> Values | None:
    """Squared gradients with respect to ``node``'s value in the float model, in its shape, one entry a batch.

    Outputs ``(N, C)`` are read as logits: L is ``-log softmax(y)[label]``, the label drawn from ``softmax(y)``. All
    others are read as means of normal distributions of one width, whose L is ``|y - (y + e)|^2 / 2``: the expected
    square of the gradient is the same for any noise e of mean 0 and variance 1, and signs vary least.

    Args:
        walk: at ``node``, or at an operation behind it, with everything alive that the rest of the graph reads.
        node: the value.
        draws: labels or signs a sample, over which squares are averaged.

    Returns:
        The weights, their mean over all batches 1; None where no gradient reaches ``node``.
    """
    generator = torch.Generator().manual_seed(walk.work.seed)
    found: Values = []
    for i in range(len(walk.inputs)):
        walk.work.pause()
        squares = _squares(walk, node, i, draws, generator)
        if squares is None:
            return None
        found.append(squares)
    mean = torch.stack([w.mean() * w.numel() for w in found]).sum() / sum(w.numel() for w in found)
    if not bool(mean > 0) or not bool(torch.isfinite(mean)):
        return None
    return [(w / mean).to(walk.floats[node][i].dtype) for i, w in enumerate(found)]


def output_gradient(output: Tensor, generator: torch.Generator) -> Tensor:
    """``dL/dy`` of one drawn label, or of drawn noise; the expected outer product is the Fisher information of y."""
    if output.dim() == 2 and output.shape[1] > 1:
        probabilities = output.detach().double().softmax(1)
        labels = torch.multinomial(probabilities, 1, generator=generator)
        return probabilities.scatter_add(1, labels, -torch.ones_like(probabilities[:, :1])).to(output.dtype)
    signs = torch.randint(0, 2, output.shape, generator=generator)
    return (2 * signs - 1).to(output.dtype)


def _squares(walk: Walk, node: fx.Node, batch: int, draws: int, generator: torch.Generator) -> Tensor | None:
    with torch.enable_grad():
        start = walk.floats[node][batch].detach().requires_grad_()
        outputs = [y for y in _outputs(walk, node, start, batch) if isinstance(y, Tensor) and y.requires_grad]
        if not outputs:
            return None
        total = torch.zeros(start.shape, dtype=torch.float64)
        for draw in range(draws):
            drawn = [output_gradient(y, generator) for y in outputs]
            (found,) = torch.autograd.grad(outputs, [start], drawn, retain_graph=draw + 1 < draws)
            total += found.double().square()
    return total / draws


def _outputs(walk: Walk, node: fx.Node, start: Tensor, batch: int) -> list[Any]:
    """The model's outputs with ``node``'s value replaced, from the values that are at hand."""
    graph = walk.draft.captured.graph
    env: dict[fx.Node, Any] = {n: values[batch] for n, values in walk.floats.items()}
    env[node] = start

    def value(source: fx.Node) -> Any:
        return walk.draft.float_constant(source) if source.op == "get_attr" else env[source]

    behind = False
    for n in graph.nodes:
        if n.op == "output":
            return pytree.tree_leaves(fx.map_arg(n.args, value))
        if behind and n.op == "call_function" and n not in env:
            env[n] = walk.call(n, fx.map_arg(n.args, value), fx.map_arg(n.kwargs, value))
        behind = behind or n is node
    raise AssertionError("a graph ends with its outputs")
