"""Which layers with weights are the first ones after an input, and the last ones before an output."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import fx

from razordeploy.quantization.op_kinds import DEPTHWISE, kind_of

_LAYERS = {f"conv{n}d" for n in (1, 2, 3)} | {f"conv_transpose{n}d" for n in (1, 2, 3)} | {*DEPTHWISE, "linear"}


def ends_of(node: fx.Node) -> tuple[str, ...]:
    """``input`` when no other layer lies between an input and ``node``, ``output`` when none does behind it.

    Empty for what is no convolution or linear layer.
    """
    if kind_of(node) not in _LAYERS:
        return ()
    found = []
    if _reaches(node, lambda n: n.all_input_nodes, "placeholder"):
        found.append("input")
    if _reaches(node, lambda n: n.users, "output"):
        found.append("output")
    return tuple(found)


def _reaches(node: fx.Node, neighbours: Callable[[fx.Node], Iterable[fx.Node]], op: str) -> bool:
    waiting, seen = list(neighbours(node)), set()
    while waiting:
        near = waiting.pop()
        if near.op == op:
            return True
        if near not in seen and kind_of(near) not in _LAYERS:
            seen.add(near)
            waiting.extend(neighbours(near))
    return False
