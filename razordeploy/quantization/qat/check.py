"""Whether a graph can be trained at all, found out before the first epoch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from razordeploy.capture.graph import source_line
from razordeploy.errors import ModelError
from razordeploy.quantization.qat.graph import QATGraph


def check_gradients(network: QATGraph, inputs: tuple[torch.Tensor, ...]) -> list[str]:
    """Run one step on a copy and fix, in ``network``, the parameters that no gradient reaches.

    Returns:
        A line for the user where there are such parameters.

    Raises:
        ModelError: no gradient comes through at all; names the operation that stops it and its source line.
    """
    probe = copy.deepcopy(network).train()
    outputs = [y for y in pytree.tree_leaves(probe(*inputs)) if isinstance(y, torch.Tensor) and y.requires_grad]
    if not outputs:
        raise ModelError(
            f"the model cannot be trained: no gradient comes through {_blocker(probe, inputs)}",
            hint="train a model whose outputs are the logits, before they are made into classes",
        )
    torch.stack([y.float().square().sum() for y in outputs]).sum().backward()
    reached = {name for name, p in probe.named_parameters() if p.grad is not None}
    lost = [(name, p) for name, p in network.named_parameters() if p.requires_grad and name not in reached]
    for _, parameter in lost:
        parameter.requires_grad_(False)
    weights = [name for name, p in network.trained() if p.requires_grad]
    named = [network.called(name) for name, _ in lost if not name.startswith("module._quant_")]
    if not weights:
        raise ModelError(f"the model cannot be trained: no gradient reaches any weight, such as '{named[0]}'")
    if not named:
        return []
    ends, kept = _blocker(probe, inputs), f"{len(named)} parameters, which stay as they are: '{named[0]}' ..."
    return [f"no gradient reaches {kept}; it ends in {ends}"]


def _blocker(probe: QATGraph, inputs: tuple[torch.Tensor, ...]) -> str:
    found = _Follow(probe.module)
    found.run(*inputs)
    if found.blocker is None:
        return "its outputs"
    where = source_line(found.blocker)
    return f"'{found.blocker.name}'" + (f" at {where}" if where else "")


class _Follow(fx.Interpreter):
    """Runs the graph and remembers the first operation that takes a gradient and gives none."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.blocker: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.op.startswith("call") and self.blocker is None:
            before = any(_has_gradient(self.env[a]) for a in n.all_input_nodes)
            if before and not _has_gradient(result) and n.users:
                self.blocker = n
        return result


def _has_gradient(value: Any) -> bool:
    return any(isinstance(x, torch.Tensor) and x.requires_grad for x in pytree.tree_leaves(value))
