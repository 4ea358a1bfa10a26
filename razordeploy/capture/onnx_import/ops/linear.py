"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from razordeploy.capture.onnx_import.op import Op, Rule


def _gemm(op: Op, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``alpha a b + beta c``; as a linear layer where it is one."""
    alpha, beta = op.get("alpha", 1.0), op.get("beta", 1.0)
    a = a.t() if op.get("transA", 0) else a
    weight = b if op.get("transB", 0) else b.t()
    bias = None
    if c is not None and beta == 1 and c.numel() == weight.shape[0] and c.shape[-1:] == weight.shape[:1]:
        bias = c.reshape(-1)
    if alpha == 1 and (c is None or bias is not None):
        return functional.linear(a, weight, bias)
    product = alpha * functional.linear(a, weight)
    return product if c is None else product + beta * c


def _einsum(op: Op, *values: Tensor) -> Tensor:
    return torch.einsum(op.get("equation"), *values)


RULES = {
    "Einsum": Rule(run=_einsum),
    "Gemm": Rule(run=_gemm),
    "MatMul": Rule(run=lambda op, a, b: torch.matmul(a, b)),
}
