"""Channels-last weights without touching the module they came from."""

from __future__ import annotations

import torch
from torch import fx, nn


def channels_last_copy(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return the same graph over channels-last copies of its 4-d parameters and buffers; the others are shared.

    ``Module.to(memory_format=...)`` changes the tensors themselves, which a captured graph shares with the caller's
    model; and exporters read the captured graph's own weights, not all of them in any layout.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(graph_module.graph, {}))
    return channels_last(fx.GraphModule(graph_module, graph))


def channels_last(module: fx.GraphModule) -> fx.GraphModule:
    """Give ``module`` its own channels-last copies of 4-d parameters and buffers; return it.

    A parameter that is registered twice stays one.
    """
    copies: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for name, tensor in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
            if tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last):
                continue
            if id(tensor) not in copies:
                copy = tensor.detach().contiguous(memory_format=torch.channels_last)
                is_parameter = isinstance(tensor, nn.Parameter)
                copies[id(tensor)] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
            setattr(owner, name, copies[id(tensor)])
    return module
