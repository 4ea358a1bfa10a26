"""The captured model: one ATen graph that pruning, quantization and export all work on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from razordeploy.artifact import TensorSpec

_WRAPPER = re.compile(r"L\['self'\]\.?|L__self__\.?|_export_root\.?")


@dataclass(kw_only=True)
class CapturedModel:
    """A float model as a normalised ATen graph, in eval mode, batch norms folded."""

    graph_module: fx.GraphModule
    """Takes the model's input tensors, flattened; returns its output tensor, or a flat tuple of several."""
    example_inputs: tuple[torch.Tensor, ...]
    """The tensors that the capture ran with, flattened; batch of at least two where it is dynamic."""
    dynamic_batch: bool = True
    """False where the capture baked the batch size in."""
    warnings: tuple[str, ...] = ()

    @property
    def graph(self) -> fx.Graph:
        """The ATen graph."""
        return self.graph_module.graph

    def placeholders(self) -> list[fx.Node]:
        """Input nodes, in the order of ``example_inputs``."""
        return [n for n in self.graph.nodes if n.op == "placeholder"]

    @property
    def batch_size(self) -> int:
        """Batch of the example inputs."""
        return int(self.example_inputs[0].shape[0])

    def output_nodes(self) -> list[fx.Node]:
        """Nodes whose values the model returns, flattened, repeats kept."""
        return [n for n in flat_nodes(output_node(self.graph).args[0])]


def tensor_specs(
    captured: CapturedModel, input_names: Sequence[str] | None, output_names: Sequence[str] | None
) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs as an engine of ``captured`` has them; without names, those that exporters give."""

    def spec(name: str, value: torch.Tensor) -> TensorSpec:
        sizes = tuple(s if isinstance(s, int) else None for s in value.shape)
        return TensorSpec(name=name, shape=sizes, dtype=str(value.dtype).removeprefix("torch."))

    inputs, outputs = captured.placeholders(), captured.output_nodes()
    # The argument's own name; torch numbers the node where Python has a built-in function of that name.
    names = input_names or [str(n.target) for n in inputs]
    given = output_names or [f"output_{i}" if len(outputs) > 1 else "output" for i in range(len(outputs))]
    return (
        [spec(name, n.meta["val"]) for name, n in zip(names, inputs, strict=True)],
        [spec(name, n.meta["val"]) for name, n in zip(given, outputs, strict=True)],
    )


def output_node(graph: fx.Graph) -> fx.Node:
    """Return the one output node of ``graph``."""
    return next(n for n in reversed(graph.nodes) if n.op == "output")


def flat_nodes(args: Any) -> Iterator[fx.Node]:
    """Yield every node in a nest of tuples, lists and dicts, in order, repeats kept."""
    for leaf in torch.utils._pytree.tree_leaves(args, is_leaf=lambda a: isinstance(a, fx.Node)):
        if isinstance(leaf, fx.Node):
            yield leaf


def value_of(node: fx.Node) -> Any:
    """Fake value that the capture recorded for ``node``; None when it recorded none."""
    return node.meta.get("val")


def shape_of(node: fx.Node) -> tuple[Any, ...] | None:
    """Shape of a tensor node, symbolic sizes included; None for anything else."""
    value = value_of(node)
    return tuple(value.shape) if isinstance(value, torch.Tensor) else None


def is_float(node: fx.Node) -> bool:
    """Tell whether ``node`` carries one floating-point tensor."""
    value = value_of(node)
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def attribute(module: torch.nn.Module, target: str) -> Any:
    """Return the parameter or buffer that a ``get_attr`` target names."""
    for part in target.split("."):
        module = getattr(module, part)
    return module


def module_path(node: fx.Node) -> str:
    """Dotted path of the module that ``node`` was traced from; empty at the root."""
    stack = node.meta.get("nn_module_stack")
    if not stack:
        return ""
    path, _ = next(reversed(stack.values()))
    return _WRAPPER.sub("", str(path)).strip(".")


def source_line(node: fx.Node) -> str:
    """``file:line`` of the user's code that made ``node``; empty when unknown."""
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    ours = [f for f in frames if "/torch/" not in f[0]]
    return ":".join((ours or frames)[-1]) if frames else ""
