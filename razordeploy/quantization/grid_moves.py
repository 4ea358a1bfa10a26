"""Operations that only pass on the grid of the value that they read."""

from __future__ import annotations

import operator

from torch import fx

from razordeploy.capture.graph import is_float
from razordeploy.quantization.op_kinds import kind_of


def source_of(node: fx.Node) -> fx.Node:
    """The tensor that a grid-passing operation reads; looks through tuple-valued splits."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    while not is_float(source) and source.args and isinstance(source.args[0], fx.Node):
        source = source.args[0]
    return source


def is_part(node: fx.Node) -> bool:
    """Tell whether ``node`` takes some of the values that it reads: a slice, or a split and what is indexed of it."""
    source = node.args[0]
    of_pool = node.target is operator.getitem and isinstance(source, fx.Node) and kind_of(source) == "max_pool"
    return kind_of(node) in ("slice", "split") and not of_pool
