"""Give inner channels that fill no whole vector of an int8 kernel some that are zero, so that they do.

ONNX Runtime's depthwise kernel takes sixteen channels at a time and the rest one by one; its matrix product takes the
inner size, and the outer one, by fours, and at least sixteen outputs. 88 channels of a depthwise 3x3 at 28 x 28 take
two and a half times as long as 96, 58 of a pointwise layer nearly twice as long as 60, and 8 twice as long as 16.

Added channels have weights 0 in the layers that read them, so that nothing which leaves them changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from razordeploy.backends.onnx_passes.values import constant

_KEEP_CHANNELS = {
    *("QuantizeLinear", "DequantizeLinear", "Identity", "AveragePool", "GlobalAveragePool", "MaxPool"),
    *("Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "QuickGelu", "Relu", "Sigmoid", "Tanh"),
}
"""What works on each channel alone and leaves zeros finite."""
_ELEMENTWISE = {"Add", "Mul"}
_CHANNELS = 1
_SMALL_KERNEL = 64
"""Values of a kernel's window from which on the copy of an image with one more channel costs more than it saves."""


@dataclass(eq=False)
class _Layer:
    """A convolution with a constant int8 weight of its own."""

    node: ir.Node
    pair: ir.Node
    """DequantizeLinear of the weight."""
    depthwise: bool
    window: int
    """Values that it reads of one channel for one output."""


@dataclass
class _Group:
    """Values that have one number of channels, and the layers at their ends."""

    channels: int = 0
    fixed: bool = False
    values: list[ir.Value] = field(default_factory=list)
    writers: list[_Layer] = field(default_factory=list)
    readers: list[_Layer] = field(default_factory=list)

    @property
    def depthwise(self) -> bool:
        return any(layer.depthwise for layer in self.writers)


def fill_vectors(model: ir.Model, *, depthwise: int, dense: int) -> None:
    """Round the channels between int8 convolutions up, in place.

    Args:
        model: a graph with pairs, biases still in float.
        depthwise: channels of a vector in depthwise kernels, and the fewest of all others.
        dense: what the channels of all other convolutions are a multiple of.
    """
    for group in _groups(model.graph):
        few = group.channels < depthwise and not group.fixed
        multiple = depthwise if group.depthwise or few else dense
        channels = -(-group.channels // multiple) * multiple
        if group.channels < 2 or channels == group.channels:
            continue
        if not group.fixed:
            _widen(model.graph, group, channels)
        elif channels == dense:
            _widen_image(model.graph, group, channels)


def _groups(graph: ir.Graph) -> list[_Group]:
    union = _Union()
    layers: list[_Layer] = []
    for node in graph:
        layer = _layer(node)
        if layer is not None:
            layers.append(layer)
            if layer.depthwise:
                union.join(_input(node), node.outputs[0])
        elif not _joins(node, union):
            for value in (*node.inputs, *node.outputs):
                union.fix(value)
    for value in (*graph.inputs, *graph.outputs):
        union.fix(value)
    return union.groups(layers)


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _joins(node: ir.Node, union: _Union) -> bool:
    """Join the values of a node that leaves channels where they are; False for any other."""
    kind, out = node.op_type, node.outputs[0]
    if len(node.outputs) != 1 or _size(out) is None:
        return False
    if kind in {"QuantizeLinear", "DequantizeLinear"} and not all(_rank(v) == 0 for v in node.inputs[1:]):
        return False
    if (kind in _KEEP_CHANNELS or _only_images(node)) and _input(node).const_value is None:
        union.join(_input(node), out)
        return True
    if kind in _ELEMENTWISE and all(
        v is not None and v.const_value is None and _size(v) == _size(out) for v in node.inputs
    ):
        for value in node.inputs:
            assert value is not None
            union.join(value, out)
        return True
    return False


def _only_images(node: ir.Node) -> bool:
    """Tell whether a Resize is given factors, and leaves channels alone."""
    scales = node.inputs[2] if node.op_type == "Resize" and len(node.inputs) == 3 else None
    factors = ir.convenience.get_const_tensor(scales) if scales is not None else None
    return factors is not None and bool(factors.numpy()[_CHANNELS] == 1)


def _layer(node: ir.Node) -> _Layer | None:
    weight = node.inputs[1] if node.op_type == "Conv" else None
    pair = weight.producer() if weight is not None else None
    if weight is None or pair is None or pair.op_type != "DequantizeLinear" or len(list(weight.uses())) != 1:
        return None
    integers = pair.inputs[0]
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if integers is None or integers.const_value is None or (bias is not None and bias.const_value is None):
        return None
    zero = pair.inputs[2].const_value if len(pair.inputs) > 2 and pair.inputs[2] is not None else None
    if (zero is not None and zero.numpy().any()) or pair.attributes.get_int("axis", 1) not in (0, 1):
        return None
    outputs, inputs, *window = integers.const_value.numpy().shape
    groups = node.attributes.get_int("group", 1)
    depthwise = groups > 1 and groups == outputs and inputs == 1
    axis_is_output = _rank(pair.inputs[1]) == 0 or pair.attributes.get_int("axis", 1) == 0
    fits = axis_is_output and (groups == 1 or depthwise)
    return _Layer(node, pair, depthwise, math.prod(window)) if fits else None


def _size(value: ir.Value) -> int | None:
    """Number of channels, where the value has images or sequences of them."""
    shape = value.shape
    size = shape[_CHANNELS] if shape is not None and len(shape) > 2 else None
    return size if isinstance(size, int) else None


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None or value.shape is None else len(value.shape)


class _Union:
    """Values that must have the same channels."""

    def __init__(self) -> None:
        self.parent: dict[ir.Value, ir.Value] = {}
        self.fixed: set[ir.Value] = set()

    def find(self, value: ir.Value) -> ir.Value:
        """The value that stands for all that ``value`` was joined with."""
        root = value
        while self.parent.setdefault(root, root) is not root:
            root = self.parent[root]
        self.parent[value] = root
        return root

    def join(self, first: ir.Value, second: ir.Value) -> None:
        """Let both have the same channels."""
        self.parent[self.find(first)] = self.find(second)

    def fix(self, value: ir.Value | None) -> None:
        """Let the channels of ``value`` stay."""
        if value is not None:
            self.find(value)
            self.fixed.add(value)

    def groups(self, layers: list[_Layer]) -> list[_Group]:
        """Groups that some layer reads or writes."""
        found: dict[ir.Value, _Group] = {}
        for layer in layers:
            for value, ends in ((layer.node.outputs[0], "writers"), (_input(layer.node), "readers")):
                group = found.setdefault(self.find(value), _Group())
                getattr(group, ends).append(layer)
                group.channels = group.channels or _size(value) or 0
                group.fixed |= _size(value) is None
        for value in self.parent:
            group = found.get(self.find(value), _Group())
            group.values.append(value)
            group.fixed |= value in self.fixed
        return list(found.values())


def _widen(graph: ir.Graph, group: _Group, channels: int) -> None:
    for layer in group.writers:
        _pad_weight(graph, layer, 0, channels)
        if layer.depthwise:
            layer.node.attributes["group"] = ir.AttrInt64("group", channels)
    for layer in group.readers:
        if not layer.depthwise:
            _pad_weight(graph, layer, 1, channels)
    for value in group.values:
        _set_size(value, channels)


def _widen_image(graph: ir.Graph, group: _Group, channels: int) -> None:
    """Read an image of the input's two or three channels with more of them, which are zero points."""
    for layer in group.readers:
        pair = _input(layer.node).producer()
        if (
            pair is None
            or pair.op_type != "DequantizeLinear"
            or layer.depthwise
            or not 1 < layer.window < _SMALL_KERNEL
        ):
            continue
        integers, image = pair.inputs[0], pair.outputs[0]
        if integers is None or len(list(image.uses())) != 1:
            continue
        rank = _rank(image)
        sizes = np.zeros(2 * rank, np.int64)
        sizes[rank + _CHANNELS] = channels - group.channels
        name = f"{layer.node.name}.image"
        pad = ir.node("Pad", [integers, constant(graph, f"{name}.sizes", sizes), pair.inputs[2]], name=name)
        graph.insert_before(pair, pad)
        out = pad.outputs[0]
        out.name, out.type, out.shape = name, integers.type, image.shape.copy() if image.shape is not None else None
        pair.replace_input_with(0, out)
        for value in (out, image):
            _set_size(value, channels)
        _pad_weight(graph, layer, 1, channels)


def _pad_weight(graph: ir.Graph, layer: _Layer, axis: int, channels: int) -> None:
    """Add zeros to a layer's weight along an axis; along the output channels to scale, zero point and bias too."""
    places = [(layer.pair, 0, axis, 0)]
    if axis == 0:
        places += [(layer.pair, i, 0, int(i == 1)) for i in range(1, len(layer.pair.inputs))]
        places += [(layer.node, i, 0, 0) for i in range(2, len(layer.node.inputs))]
    for node, position, along, fill in places:
        value = node.inputs[position]
        if value is None or _rank(value) == 0 or value.const_value is None:
            continue
        tensor = value.const_value.numpy()
        sizes = [(0, 0)] * tensor.ndim
        sizes[along] = (0, channels - tensor.shape[along])
        padded = np.pad(tensor, sizes, constant_values=fill)
        node.replace_input_with(position, constant(graph, f"{value.name}.{layer.node.name}.{channels}", padded))
    weight, integers = layer.pair.outputs[0], layer.pair.inputs[0]
    weight.shape = integers.shape if integers is not None else None


def _set_size(value: ir.Value, channels: int) -> None:
    if value.shape is not None:
        sizes = list(value.shape)
        sizes[_CHANNELS] = channels
        value.shape = ir.Shape(sizes)
