"""The layout and the kernels with which a captured graph runs fastest on a CPU, for graphs that are only run.

Images and convolution weights lie channels-last. Linear layers go through oneDNN: torch takes them to MKL, which off
Intel processors reaches less than half of oneDNN's speed (116 against 260 GFLOP/s on one Zen 5 core).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx, nn

_aten = torch.ops.aten


def fast_copy(graph_module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy that runs faster and shares all parameters but the 4-d ones; without gradients.

    ``Module.to(memory_format=...)`` changes the tensors themselves, which a captured graph shares with the caller's
    model; and exporters read the captured graph's own weights, not all of them in any layout.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(graph_module.graph, {}))
    return fast(fx.GraphModule(graph_module, graph))


def fast(module: fx.GraphModule) -> fx.GraphModule:
    """The same in place, but for the parameters, which are never written; return ``module``, recompiled."""
    _channels_last(module)
    for node in module.graph.nodes:
        if node.target is _aten.linear.default:
            node.target = fast_linear
    module.recompile()
    return module


def fast_input(value: torch.Tensor) -> torch.Tensor:
    """Lay a batch of images ``(N, C, H, W)`` out channels-last; other tensors come back as they are."""
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _onednn_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    plain = torch.compiler.is_exporting()  # a saved program is read by others, and cannot hold oneDNN's operator
    if plain or x.dtype != torch.float32 or x.dim() < 2 or x.requires_grad:
        return nn.functional.linear(x, weight, bias)
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


_HAS_ONEDNN = torch.backends.mkl.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")

fast_linear: Callable[..., torch.Tensor] = _onednn_linear if _HAS_ONEDNN else _aten.linear.default
"""``x W^T + b`` for ``x (..., in)``, ``W (out, in)``, ``b (out,)`` or None; no gradients of the weight."""


def _channels_last(module: fx.GraphModule) -> None:
    """Give ``module`` its own channels-last copies of 4-d parameters and buffers; one registered twice stays one."""
    copies: dict[int, torch.Tensor] = {}
    for owner in module.modules():
        for name, tensor in [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]:
            if tensor.dim() != 4 or tensor.is_mkldnn or tensor.is_contiguous(memory_format=torch.channels_last):
                continue
            if id(tensor) not in copies:
                copy = tensor.detach().contiguous(memory_format=torch.channels_last)
                is_parameter = isinstance(tensor, nn.Parameter)
                copies[id(tensor)] = nn.Parameter(copy, requires_grad=False) if is_parameter else copy
            setattr(owner, name, copies[id(tensor)])
