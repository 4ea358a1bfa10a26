"""Values that passes add to a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir


def constant(graph: ir.Graph, name: str, value: np.ndarray[Any, Any] | np.generic) -> ir.Value:
    """An initializer of ``graph`` of this name, with the array's shape and type."""
    tensor = ir.tensor(np.asarray(value), name=name)
    made = ir.Value(name=name, shape=ir.Shape(np.shape(value)), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(made)
    return made
