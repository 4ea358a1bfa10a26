"""The model's own module tree with other widths: parameters replaced, and the numbers that layers keep about them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import fx, nn

from razordeploy.capture.graph import module_path
from razordeploy.subnet.slice_constants import Patch
from razordeploy.subnet.slice_state import named_tensors
from razordeploy.subnet.tracer.trace import Trace

_Numbers = dict[str, dict[int, set[int]]]
"""By module path: what each number has become, as far as its part of the graph tells."""


def sliced_module(
    model: nn.Module, trace: Trace, patches: Mapping[fx.Node, Patch], state: Mapping[str, torch.Tensor]
) -> nn.Module:
    """Return a copy of ``model`` with ``state``, its layers told their new widths.

    A number of a module that is no torch layer is changed where it equals a constant of the module's part of the graph
    that changed, to one value only. The caller has to check the result: code may know widths in other ways.
    """
    olds = named_tensors(model)
    result = copy.deepcopy(model, {id(olds[name]): tensor for name, tensor in state.items()})
    groups: dict[str, int] = {}
    numbers: _Numbers = {}
    for node, patch in patches.items():
        path = module_path(node)
        for old, new in patch.constants:
            numbers.setdefault(path, {}).setdefault(old, set()).add(new)
            groups[path] = new
    modules = dict(result.named_modules(remove_duplicate=False))
    originals = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        if not _resize_layer(module, groups.get(path)):
            _own_shapes(originals[path], module, numbers.setdefault(path, {}))
            _resize_numbers(module, numbers[path])
    return result


def _own_shapes(original: nn.Module, module: nn.Module, numbers: dict[int, set[int]]) -> None:
    """What a module's own parameters say about widths that no constant of the graph mentions."""
    found: dict[int, set[int]] = {}
    for name, old in original.named_parameters(recurse=False):
        for before, after in zip(old.shape, module.get_parameter(name).shape, strict=True):
            if before > 1:
                found.setdefault(before, set()).add(after)
    for before, afters in found.items():
        if before not in numbers and len(afters) == 1 and before not in afters:
            numbers[before] = afters


def _resize_numbers(module: nn.Module, numbers: Mapping[int, set[int]]) -> None:
    for name, value in list(vars(module).items()):
        if isinstance(value, (list, tuple)) and value and all(type(item) is int for item in value):
            new = [_renumbered(item, numbers) for item in value]
            if new != list(value) and type(value) in {list, tuple}:
                setattr(module, name, type(value)(new))
        elif type(value) is int and name != "training":
            setattr(module, name, _renumbered(value, numbers))


def _renumbered(value: int, numbers: Mapping[int, set[int]]) -> int:
    new = numbers.get(value, set())
    return next(iter(new)) if len(new) == 1 else value


def _resize_layer(module: nn.Module, groups: int | None) -> bool:
    """Make the numbers of a torch layer fit its parameters; False when it is none."""
    resize = next((_LAYERS[base] for base in type(module).__mro__ if base in _LAYERS), None)
    if resize is None:
        return False
    resize(module, groups)
    return True


def _linear(module: nn.Linear, groups: int | None) -> None:
    module.out_features, module.in_features = module.weight.shape


def _convolution(module: nn.modules.conv._ConvNd, groups: int | None) -> None:
    module.groups = groups or module.groups
    rows, own = module.weight.shape[:2]
    if module.transposed:
        module.in_channels, module.out_channels = rows, own * module.groups
    else:
        module.out_channels, module.in_channels = rows, own * module.groups


def _batch_norm(module: nn.modules.batchnorm._NormBase, groups: int | None) -> None:
    state: Iterable[torch.Tensor | None] = (module.running_mean, module.weight)
    module.num_features = next((len(t) for t in state if t is not None), module.num_features)


def _layer_norm(module: nn.LayerNorm, groups: int | None) -> None:
    if module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)


def _group_norm(module: nn.GroupNorm, groups: int | None) -> None:
    module.num_groups = groups or module.num_groups
    if module.weight is not None:
        module.num_channels = len(module.weight)


def _embedding(module: nn.Embedding, groups: int | None) -> None:
    module.num_embeddings, module.embedding_dim = module.weight.shape


def _prelu(module: nn.PReLU, groups: int | None) -> None:
    module.num_parameters = len(module.weight)


_LAYERS: dict[type[nn.Module], Callable[[Any, int | None], None]] = {
    nn.Linear: _linear,
    nn.modules.conv._ConvNd: _convolution,
    nn.modules.batchnorm._NormBase: _batch_norm,
    nn.LayerNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
}
