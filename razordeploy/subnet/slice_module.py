"""The model's own module tree with other widths: parameters replaced, and the numbers that layers keep about them."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

from razordeploy.capture.graph import module_path
from razordeploy.subnet.slice_constants import Patch
from razordeploy.subnet.slice_state import named_tensors

_Numbers = dict[str, dict[int, set[int]]]
"""By module path: what each number has become, as far as its part of the graph tells."""
_NO_WIDTH = re.compile(r"kernel|window|patch|stride|pad|dilation|img|image|resolution|depth|stage|ratio|index|hw|shape")
_COUNT = re.compile(r"^(num|n)_|heads$|groups$")


def sliced_modules(
    model: nn.Module, patches: Mapping[fx.Node, Patch], state: Mapping[str, torch.Tensor]
) -> Iterator[nn.Module]:
    """Yield copies of ``model`` with ``state``, its layers told their new widths, the likeliest first.

    A number of a module that is no torch layer is changed where it equals a constant of the module's part of the graph
    that changed, to one value only. Numbers coincide (a window of 8 and 8 heads), so there is more than one guess.
    The caller has to check the results: code may know widths in other ways still.
    """
    guesses = set()
    for guess in _GUESSES:
        result, changed = _sliced(model, patches, state, guess)
        if changed not in guesses:
            guesses.add(changed)
            yield result


_Guess = Callable[[str, bool, bool], bool]
"""``(attribute, in a tuple or list, the same number also stays somewhere) -> change it``."""
_GUESSES: tuple[_Guess, ...] = (
    lambda name, nested, stays: not _NO_WIDTH.search(name),
    lambda name, nested, stays: not _NO_WIDTH.search(name) and not nested,
    lambda name, nested, stays: not _NO_WIDTH.search(name) and not nested and (not stays or bool(_COUNT.search(name))),
    lambda name, nested, stays: True,
)


def _sliced(
    model: nn.Module, patches: Mapping[fx.Node, Patch], state: Mapping[str, torch.Tensor], guess: _Guess
) -> tuple[nn.Module, frozenset[tuple[str, str]]]:
    """One copy, and which attributes of which modules were changed."""
    olds = named_tensors(model)
    result = copy.deepcopy(model, {id(olds[name]): tensor for name, tensor in state.items()})
    groups: dict[str, int] = {}
    numbers: _Numbers = {}
    stay: dict[str, set[int]] = {}
    for node, patch in patches.items():
        path = re.sub(r"@\d+", "", module_path(node))  # the second call of a module
        for old, new in patch.constants:
            if old != new:
                numbers.setdefault(path, {}).setdefault(old, set()).add(new)
                groups[path] = new
            else:
                stay.setdefault(path, set()).add(old)
    originals = dict(model.named_modules(remove_duplicate=False))
    changed: set[tuple[str, str]] = set()
    for path, module in result.named_modules(remove_duplicate=False):
        if not _resize_layer(module, groups.get(path)):
            _own_shapes(originals[path], module, numbers.setdefault(path, {}))
            changed |= {(path, name) for name in _resize_numbers(module, numbers[path], stay.get(path, set()), guess)}
    return result, frozenset(changed)


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


def _resize_numbers(
    module: nn.Module, numbers: Mapping[int, set[int]], stay: Collection[int], guess: _Guess
) -> Iterator[str]:
    """Change the numbers of one module; yields the attributes that were changed."""
    for name, value in list(vars(module).items()):
        if type(value) is int and _renumbered(value, numbers) != value and guess(name, False, value in stay):
            setattr(module, name, _renumbered(value, numbers))
            yield name
    for name, value in list(vars(module).items()):
        if type(value) in {list, tuple} and value and all(type(item) is int for item in value):
            items = [_renumbered(item, numbers) for item in value]
            if items != list(value) and guess(name, True, False):
                setattr(module, name, type(value)(items))
                yield name


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


def _layer_norm(module: nn.LayerNorm | nn.RMSNorm, groups: int | None) -> None:
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
    nn.RMSNorm: _layer_norm,
    nn.GroupNorm: _group_norm,
    nn.Embedding: _embedding,
    nn.PReLU: _prelu,
}
