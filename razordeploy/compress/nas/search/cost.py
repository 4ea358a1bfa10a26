"""What a subnet of a supernet costs: a table by layer and choice, filled by counting and then only added up."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from razordeploy.compress.nas.search.space import SearchSpace, Subnet
from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicMixin
from razordeploy.subnet.dynamic_ops.resizer import DynamicInputResizer
from razordeploy.subnet.dynamic_ops.sequential import DynamicSequential
from razordeploy.subnet.mutables.base import BaseMutable

_log = logging.getLogger(__name__)
_MILLION = 1e6
_CHECKS = 8
"""Random subnets that are counted in full, to see that layers depend on nothing else than the table says."""
_SLICES = 20_000
"""Slices of layers that are made before a search begins; a third of a millisecond each."""
_RUNS = 24
"""Subnets that are run before a search begins for the sake of operations without weights."""
_WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
_aten = torch.ops.aten
_PRODUCTS = {_aten.mm.default: 0, _aten.bmm.default: 0, _aten.addmm.default: 1, _aten.baddbmm.default: 1}
"""Operation -> position of the first factor."""
_ATTENTION = (
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
)


class SupernetCosts:
    """Multiply-accumulates and parameters of any subnet: those of its static model.

    What a layer does at one position follows from its own mutables, as its parameters do; at how many positions it
    does that follows from the resolution, and whether it is there at all from the modules it is in. Each is a table:
    the first is filled by slicing the layer, the others by running the supernet on the example inputs. What a search
    asks for is then a sum over layers. Where that turns out wrong for a supernet, every subnet is counted in full.

    Args:
        supernet: left as it was, but for its current choice.
        mutator: prepared from it.
        example_inputs: one sample.
    """

    def __init__(self, supernet: nn.Module, mutator: Any, example_inputs: tuple[Tensor, ...]) -> None:
        self.supernet = supernet
        self.mutator = mutator
        self.inputs = example_inputs
        self.layers = list(_layers(supernet, mutator.search_groups))
        self._workers: set[int] = set()
        """Layers that are no convolution or linear layer, and yet do products."""
        self.exact_only = False
        """True: the tables were found not to hold for this supernet."""
        self.counted = 0
        """Subnets that were counted by running the supernet."""

    def __call__(self, subnet: Subnet) -> dict[str, float]:
        """``macs``, ``flops`` (twice the multiply-accumulates) and ``params``, in millions.

        Infinite where the subnet does not run: no limit allows it, and where there is none its evaluation says why.
        """
        try:
            macs, params = self.count(subnet)
        except ModelError:
            raise
        except Exception as error:  # the model's own code, which may raise anything
            _log.debug("a subnet does not run: %s", error)
            return dict.fromkeys(("macs", "flops", "params"), math.inf)
        return {"macs": macs / _MILLION, "flops": 2 * macs / _MILLION, "params": params / _MILLION}

    def count(self, subnet: Subnet) -> tuple[int, int]:
        """Multiply-accumulates of one sample, and parameters.

        Raises:
            ModelError: a choice that is none.
        """
        macs = params = 0
        is_set = False
        for index, layer in enumerate(self.layers):
            there = None if self.exact_only else layer.there.get(layer.outside(subnet))
            if there is False:
                continue
            work = layer.work.get(layer.everything(subnet)) if index in self._workers else 0
            if there is None or work is None:
                return self.count_in_full(subnet)
            own = layer.inside(subnet)
            if own not in layer.sizes:
                if not is_set:
                    self.mutator.set_choices(subnet)
                    is_set = True
                layer.sizes[own] = layer.size()
            weight, size = layer.sizes[own]
            place = layer.places.get(layer.everywhere(subnet)) if weight else 0
            if place is None:
                return self.count_in_full(subnet)
            macs += place * weight + work
            params += size
        return macs, params

    def count_in_full(self, subnet: Subnet) -> tuple[int, int]:
        """The same by running the supernet once; fills the tables."""
        self.counted += 1
        self.mutator.set_choices(subnet)
        macs, reached = _run(self.supernet, self.inputs, self.layers)
        total = 0
        for index, layer in enumerate(self.layers):
            weight, size = layer.sizes[layer.inside(subnet)] = layer.size()
            there = layer.there[layer.outside(subnet)] = index in reached or not layer.may_vanish
            if not there:
                continue
            total += size
            if not weight and macs[index]:
                self._workers.add(index)
            layer.work[layer.everything(subnet)] = 0 if weight else macs[index]
            if weight:
                layer.places[layer.everywhere(subnet)] = macs[index] // weight
        return sum(macs), total

    def slice_ahead(self, space: SearchSpace) -> int:
        """Slice layers at every combination of their own choices, those with few first; the slices that were made.

        What is left is sliced when it is asked for, which takes longer: a search would begin slowly.
        """
        together: dict[tuple[str, ...], list[_Layer]] = {}
        for layer in self.layers:
            together.setdefault(layer.own, []).append(layer)
        slices = {own: len(layers) * math.prod(len(space.groups[n]) for n in own) for own, layers in together.items()}
        made = 0
        for own in sorted(together, key=slices.__getitem__):
            if made + slices[own] > _SLICES:
                break
            made += slices[own]
            for combination in itertools.product(*(space.groups[name] for name in own)):
                choices = dict(zip(own, combination, strict=True))
                # A choice that the model refuses is found again, and reported, where a subnet has it.
                with contextlib.suppress(Exception):
                    self.mutator.set_choices(choices)
                    for layer in together[own]:
                        layer.sizes[layer.inside(choices)] = layer.size()
        return made

    def _run_ahead(self, space: SearchSpace, largest: Subnet) -> None:
        """Count subnets in full until the work of attention and the like is known at every combination."""
        for _ in range(_RUNS):
            wanted: Subnet = {}
            for index in sorted(self._workers):
                layer = self.layers[index]
                names = _unique(layer.resolution, layer.own)
                free = ([wanted[name]] if name in wanted else space.groups[name] for name in names)
                for combination in itertools.product(*free):
                    choices = dict(zip(names, combination, strict=True))
                    if layer.everything(choices) not in layer.work:
                        wanted |= choices
                        break
            if not wanted:
                return
            self({**largest, **wanted})

    def check(self, space: SearchSpace, seed: int = 0) -> bool:
        """Count some subnets in full and hold the tables against them; False: they do not hold, and are not used."""
        self.slice_ahead(space)
        rng = random.Random(seed)
        largest = {name: choices[-1] for name, choices in space.groups.items()}
        for name in dict.fromkeys(name for layer in self.layers for name in (*layer.resolution, *layer.above)):
            for choice in space.groups[name]:
                self({**largest, name: choice})
        self._run_ahead(space, largest)
        for _ in range(_CHECKS):
            self(space.sample(rng))
        for _ in range(_CHECKS):
            subnet = space.sample(rng)
            from_table = self(subnet)
            if math.isfinite(from_table["macs"]) and self.count(subnet) != self.count_in_full(subnet):
                _log.warning("costs of this supernet are no sums over layers: every subnet is counted in full")
                self.exact_only = True
                return False
        return True


class _Layer:
    """An operation whose parameters or work may depend on choices."""

    def __init__(
        self, module: nn.Module, own: tuple[str, ...], above: tuple[str, ...], size: tuple[str, ...], may_vanish: bool
    ) -> None:
        self.module = module
        self.own = own
        """Groups that its own mutables belong to."""
        self.above = above
        """Groups of the modules that it is in."""
        self.resolution = size
        """Groups of the input size."""
        self.may_vanish = may_vanish
        """True: some choice leaves it out of the static model."""
        self.sizes: dict[tuple[Any, ...], tuple[int, int]] = {}
        """Elements of the weight that is multiplied at each position, and of all parameters, by the own choices."""
        self.there: dict[tuple[Any, ...], bool] = {}
        """Whether the static model has it, by the choices above."""
        self.places: dict[tuple[Any, ...], int] = {}
        """Positions that the weight is multiplied at where it is there, by the resolution."""
        self.work: dict[tuple[Any, ...], int] = {}
        """Multiply-accumulates of what is no convolution or linear layer, by the resolution and the own choices."""

    def inside(self, subnet: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([_hashable(subnet[name]) for name in self.own])

    def outside(self, subnet: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([_hashable(subnet[name]) for name in self.above])

    def everywhere(self, subnet: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple([_hashable(subnet[name]) for name in self.resolution])

    def everything(self, subnet: Mapping[str, Any]) -> tuple[Any, ...]:
        return self.everywhere(subnet) + self.inside(subnet)

    def size(self) -> tuple[int, int]:
        """``sizes`` at the current choice."""
        module: Any = self.module
        if _is_operation(module):
            whole = module
            module = whole._bare()
            whole._slice_into(module)
            inside = [module] if whole.own_tensors_only else list(module.modules())
            parameters = list(module.parameters(recurse=not whole.own_tensors_only))
        else:
            inside, parameters = [module], list(module.parameters(recurse=False))
        weights = [part.weight.numel() for part in inside if isinstance(part, _WEIGHTED)]
        # Of several, as in attention, each has its own positions.
        weight = weights[0] if len(weights) == 1 else 0
        return weight, sum(parameter.numel() for parameter in parameters)


def _is_operation(module: Any) -> bool:
    """Tell whether ``module`` is dynamic and has parameters of its own, which a chain has not."""
    return isinstance(module, DynamicMixin) and not isinstance(module, DynamicSequential)


def _hashable(choice: Any) -> Any:
    return tuple(choice) if isinstance(choice, list) else choice


def _layers(supernet: nn.Module, search_groups: Mapping[str, list[Any]]) -> Iterator[_Layer]:
    """Layers in order of the modules; every module with parameters of its own, or with work, is in one of them."""
    names = _group_by_mutable(search_groups)
    everywhere = _resolution_groups(supernet, names)
    seen: set[int] = set()

    def walk(module: Any, above: tuple[str, ...], may_vanish: bool) -> Iterator[_Layer]:
        if id(module) in seen:
            return
        seen.add(id(module))
        own = _groups_of(module, names)
        yield _Layer(module, own, above, everywhere, may_vanish)
        if _is_operation(module) and not module.own_tensors_only:
            return
        chooses = bool(own) and isinstance(module, BaseMutable | DynamicSequential)
        for child in module.children():
            if child is not getattr(module, "mutable_attrs", None):
                yield from walk(child, _unique(above, own), may_vanish or chooses)

    yield from walk(supernet, (), False)


def _unique(*parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in parts for name in part))


def _group_by_mutable(search_groups: Mapping[str, list[Any]]) -> dict[int, str]:
    """Name of the search group by the id of the mutable; a channel unit stands for the mutable it holds."""
    return {id(getattr(m, "mutable_channel", m)): name for name, members in search_groups.items() for m in members}


def _groups_of(module: nn.Module, names: Mapping[int, str]) -> tuple[str, ...]:
    """Search groups that ``module`` follows: its own choice, and those of its attributes."""
    mutables = [module] if isinstance(module, BaseMutable) else []
    mutables += [m for m in getattr(module, "mutable_attrs", nn.ModuleDict()).values() if isinstance(m, BaseMutable)]
    return _unique(tuple(names[id(s)] for mutable in mutables for s in mutable.sources if id(s) in names))


def _resolution_groups(supernet: nn.Module, names: Mapping[int, str]) -> tuple[str, ...]:
    resizers = [module for module in supernet.modules() if isinstance(module, DynamicInputResizer)]
    return _unique(tuple(name for module in resizers for name in _groups_of(module, names)))


def _run(supernet: nn.Module, inputs: tuple[Tensor, ...], layers: list[_Layer]) -> tuple[list[int], set[int]]:
    """Multiply-accumulates of each layer in one forward pass, and the layers that took part."""
    counter = _Counter(len(layers))
    handles = []
    for index, layer in enumerate(layers):
        enter, leave = counter.hooks(index)
        handles += [layer.module.register_forward_pre_hook(enter), layer.module.register_forward_hook(leave)]
    modes = [(module, module.training) for module in supernet.modules()]
    supernet.eval()
    try:
        with torch.no_grad(), counter:
            supernet(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return counter.macs, counter.reached


class _Counter(TorchDispatchMode):
    """Adds up the work of convolutions and products by the innermost layer that is running."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.macs = [0] * layers
        self.reached: set[int] = set()
        self._stack: list[tuple[int, bool]] = []

    def hooks(self, index: int) -> tuple[Any, Any]:
        def enter(module: nn.Module, args: Any) -> None:
            self.reached.add(index)
            self._stack.append((index, isinstance(module, nn.modules.conv._ConvNd)))

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            self._stack.pop()

        return enter, leave

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._stack:
            index, in_convolution = self._stack[-1]
            # A convolution's own products make its weight (smaller kernels of Once-for-All), not its output.
            if not in_convolution or func is _aten.convolution.default:
                self.macs[index] += _work(func, args, out)
        return out


def _work(func: Any, args: Any, out: Any) -> int:
    if func is _aten.convolution.default:
        weight, transposed = args[1], args[6]
        places = args[0] if transposed else out
        return int(places.numel() // places.size(1) * weight.numel()) if places.numel() else 0
    if func in _PRODUCTS:
        return int(out.numel() * args[_PRODUCTS[func]].size(-1))
    if func in _ATTENTION:
        query, key, value = args[:3]
        return int(query.numel() * key.size(-2) + query.numel() // query.size(-1) * key.size(-2) * value.size(-1))
    return 0
