"""Additions that run inside the kernel of the operation before them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from razordeploy.capture.graph import shape_of


def is_plain_sum(node: fx.Node) -> bool:
    """Tell whether ``node`` adds two values of one shape, unscaled."""
    left, right = node.args[:2]
    if not isinstance(left, fx.Node) or not isinstance(right, fx.Node) or left is right:
        return False
    return bool(node.kwargs.get("alpha", 1) == 1 and shape_of(left) == shape_of(right))


def all_run_before(nodes: Iterable[fx.Node], later: fx.Node) -> bool:
    """Tell whether ``later`` depends on every one of ``nodes``, directly or through others."""
    wanted, found = set(nodes), set[fx.Node]()
    stack = list(later.all_input_nodes)
    while stack and not wanted <= found:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += node.all_input_nodes
    return wanted <= found
