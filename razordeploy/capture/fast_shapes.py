"""Shapes of some results told directly while a model is traced, where torch would run a decomposition to find them.

With a symbolic batch every operation of the decomposition of a batch norm, five of them, compares and multiplies
symbols: half of the time that tracing MobileNetV2 takes. torch keeps a table of such short ways for sums and products.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch

_aten = torch.ops.aten
_IN_PLACE = (_aten.clamp_.default, _aten.hardswish_.default, _aten.hardtanh_.default, _aten.leaky_relu_.default,
             _aten.relu6_.default, _aten.relu_.default, _aten.silu_.default)  # fmt: skip
_SAME_SHAPE = (_aten.gelu.default, _aten.hardswish.default, _aten.hardtanh.default, _aten.leaky_relu.default,
               _aten.relu.default, _aten.sigmoid.default, _aten.silu.default, _aten.tanh.default)  # fmt: skip
_LAYOUTS = (torch.contiguous_format, torch.channels_last)


@contextlib.contextmanager
def fast_shapes() -> Iterator[None]:
    """Add ours to torch's table for the block; another version of torch, without the table, traces as ever."""
    table: dict[Any, Any] = {}
    with contextlib.suppress(ImportError, AttributeError):
        from torch._subclasses.fake_impls import get_fast_op_impls

        table = get_fast_op_impls()
    added = {op: rule for op, rule in _RULES.items() if op not in table}
    table.update(added)
    try:
        with contextlib.ExitStack() as stack:
            for op, rule in _PRODUCTS.items():
                if not added or not hasattr(op, "_op"):
                    break
                # They are decomposed before torch asks its table.
                stack.enter_context(mock.patch.object(op, "_op", _Call(rule, op._op)))
            yield
    finally:
        for op in added:
            table.pop(op, None)


class _Call:
    """Stands in for an operator's own call; the operator's hash, which is that of its call, stays as it is."""

    def __init__(self, rule: Callable[..., Any], plain: Callable[..., Any]) -> None:
        self.rule, self.plain = rule, plain

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # A graph names operators itself: that call is yet to be traced, and only the one below it asks for a shape.
        if _traced():
            return self.plain(*args, **kwargs)
        return self.rule(self.plain, *args, **kwargs)

    def __hash__(self) -> int:
        return hash(self.plain)

    def __eq__(self, other: object) -> bool:
        return self is other or self.plain == other


def _traced() -> bool:
    """Whether what is called now still goes past the mode that writes the graph down."""
    depth = getattr(torch._ops, "_len_torch_dispatch_stack_pre_dispatch", None)
    return depth is None or depth() > 0


def _linear(plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    x, weight = args[:2]
    fits = not kwargs and _all_fake(args) and x.dim() >= 2 and weight.dim() == 2 and x.is_contiguous()
    if not fits or x.shape[-1] != weight.shape[-1] or not all(b.shape == weight.shape[:1] for b in _present(args[2:])):
        return plain(*args, **kwargs)
    return _empty((*x.shape[:-1], weight.shape[0]), x)


def _matmul(plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    x, y = args[:2]
    fits = not kwargs and _all_fake(args) and x.dim() == y.dim() >= 3
    if not fits or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-2]:
        return plain(*args, **kwargs)
    return _empty((*x.shape[:-1], y.shape[-1]), x)


def _present(args: Sequence[Any]) -> list[Any]:
    return [a for a in args if a is not None]


def _all_fake(args: Sequence[Any]) -> bool:
    from torch._subclasses.fake_tensor import FakeTensor

    return all(isinstance(a, FakeTensor) and a.dtype == torch.float32 for a in _present(args))


def _empty(shape: Sequence[Any], like: Any) -> torch.Tensor:
    from torch.utils._mode_utils import no_dispatch

    with no_dispatch():
        return _fake(like.fake_mode, torch.empty(shape, dtype=like.dtype, device="meta"), like)


_PRODUCTS = {_aten.linear.default: _linear, _aten.matmul.default: _matmul}
"""Operator -> ``(its own call, *args, **kwargs) -> fake result``."""


def _written(mode: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return x


def _same_shape(op: Any) -> Callable[..., Any]:
    def rule(mode: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        found = _like(mode, x)
        return _long_way(mode, op, x, *args, **kwargs) if found is None else found

    return rule


def _batch_norm(mode: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    op = _aten._native_batch_norm_legit_no_training.default
    found = _like(mode, x) if all(a is None or a.dtype == x.dtype for a in args[:4]) else None
    if found is None or x.dtype != torch.float32:
        return _long_way(mode, op, x, *args, **kwargs)
    return found, *(_fake(mode, torch.empty(0, dtype=x.dtype, device="meta"), x) for _ in range(2))


def _layer_norm(mode: Any, x: torch.Tensor, shape: Sequence[int], *args: Any, **kwargs: Any) -> Any:
    op, axes = _aten.native_layer_norm.default, len(shape)
    parts = [x, *(a for a in args[:2] if a is not None)]
    if any(part.dtype != torch.float32 for part in parts) or not x.is_contiguous():
        return _long_way(mode, op, x, shape, *args, **kwargs)
    statistics = (*x.shape[: x.dim() - axes], *[1] * axes)
    found = (torch.empty(sizes, dtype=x.dtype, device="meta") for sizes in (x.shape, statistics, statistics))
    return tuple(_fake(mode, value, x) for value in found)


def _like(mode: Any, x: torch.Tensor) -> torch.Tensor | None:
    """A value of the shape, type and layout of ``x``; None for a layout that is neither of the two plain ones."""
    if not x.is_floating_point():
        return None
    for layout in _LAYOUTS[: 1 + (x.dim() == 4)]:
        if x.is_contiguous(memory_format=layout):
            return _fake(mode, torch.empty(x.shape, dtype=x.dtype, device="meta", memory_format=layout), x)
    return None


def _fake(mode: Any, value: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    from torch._subclasses.fake_tensor import FakeTensor

    return FakeTensor(mode, value, device=like.device)


def _long_way(mode: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
    decomposition = torch._decomp.decomposition_table[op]
    with mode:
        return decomposition(*args, **kwargs)


_RULES: dict[Any, Callable[..., Any]] = {
    **{op: _written for op in _IN_PLACE},
    **{op: _same_shape(op) for op in _SAME_SHAPE},
    _aten._native_batch_norm_legit_no_training.default: _batch_norm,
    _aten.native_layer_norm.default: _layer_norm,
}
"""Operator -> ``(mode, *args, **kwargs) -> fake result``."""
