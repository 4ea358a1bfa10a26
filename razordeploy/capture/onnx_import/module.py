"""The imported graph as a torch module: one submodule a node, called what the node is called."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from razordeploy.capture.onnx_import.evaluate import as_tensor, run
from razordeploy.capture.onnx_import.graph import OnnxGraph
from razordeploy.capture.onnx_import.op import Known, Op, Value
from razordeploy.errors import ModelError


class Operation(nn.Module):
    """One node; as a module, so that its name is the path that reports and recipes know it by."""

    def __init__(self, op: Op) -> None:
        super().__init__()
        self.op = op

    def forward(self, *inputs: Value | None) -> tuple[Value, ...]:
        """Run the node on its inputs; one that is left out is None."""
        return run(self.op, inputs)


class OnnxModule(nn.Module):
    """Takes and returns the tensors that the file names, in its order.

    Constants are its parameters (floats) and buffers (the rest).
    """

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        self.path = graph.path
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.nodes, self.constants = graph.nodes, graph.constants
        self._keys: dict[str, str] = {}
        for node in self.nodes:
            # Not add_module(), which takes no dots; nothing looks these modules up by path.
            self._modules[node.op.name] = Operation(node.op)
        for name, array in self.constants.items():
            self._register(name, array)
        self.eval()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in call order."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in return order."""
        return tuple(spec.name for spec in self.outputs)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Run the graph; one output comes back bare, several as a tuple.

        Raises:
            ModelError: an input is not of the shape that the file says, or a node cannot run on it.
        """
        values = dict(self.steps(inputs))
        found = tuple(as_tensor(values[name]) for name in self.output_names)
        return found[0] if len(found) == 1 else found

    def steps(self, inputs: tuple[torch.Tensor, ...]) -> Iterator[tuple[str, Value]]:
        """Every value as ``(name, value)``, in the order they are made: inputs, constants, node outputs."""
        self._check(inputs)
        values: dict[str, Value] = dict(zip(self.input_names, inputs, strict=True))
        values |= {name: Known(self.constants[name], getattr(self, key)) for name, key in self._keys.items()}
        yield from values.items()
        for node in self.nodes:
            found = self._modules[node.op.name](*(values.get(name) for name in node.inputs))  # type: ignore[misc]
            for name, value in zip(node.outputs, found, strict=False):
                values[name] = value
                yield name, value

    def _check(self, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs) != len(self.inputs):
            names = ", ".join(self.input_names)
            raise ModelError(f"{self.path} takes {len(self.inputs)} inputs ({names}), got {len(inputs)}")
        for spec, x in zip(self.inputs, inputs, strict=True):
            fits = len(spec.shape) == x.dim() and all(
                s is None or s == n for s, n in zip(spec.shape, x.shape, strict=True)
            )
            if not fits:
                wanted = ", ".join("N" if s is None else str(s) for s in spec.shape)
                raise ModelError(f"{self.path}: input '{spec.name}' has shape ({wanted}), got {tuple(x.shape)}")

    def _register(self, name: str, array: np.ndarray) -> None:
        key = re.sub(r"\W", "_", name)
        key = f"p_{key}" if not key.isidentifier() or hasattr(self, key) else key
        while hasattr(self, key):
            key += "_"
        self._keys[name] = key
        tensor = torch.from_numpy(np.array(array))
        if tensor.is_floating_point():
            self.register_parameter(key, nn.Parameter(tensor, requires_grad=False))
        else:
            self.register_buffer(key, tensor)
