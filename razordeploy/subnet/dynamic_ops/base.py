"""What every dynamic operation does: take mutables, run at their current choice, and become a plain operation."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.formulas import channels, has_mask
from razordeploy.subnet.selection import put, take

D = TypeVar("D", bound="DynamicMixin")


class DynamicMixin(nn.Module):
    """Base of dynamic operations.

    Subclasses derive from it first and from the plain operation second, whose arguments, parameters and state-dict
    keys they keep. As long as no mutable is registered they compute what the plain operation does.
    """

    accepted_mutable_attrs: ClassVar[frozenset[str]] = frozenset()
    """Names that ``register_mutable_attr`` takes."""
    attr_mappings: ClassVar[dict[str, str]] = {}
    """Other names for them: ``in_channels`` and ``out_channels`` are understood everywhere."""

    own_tensors_only: ClassVar[bool] = False
    """True: slicing this changes its own parameters and leaves those of the layers in it to them."""

    dynamic_state: ClassVar[tuple[str, ...]] = ("static_type", "masked")
    """Instance attributes that the plain operation does not get."""

    mutable_attrs: nn.ModuleDict
    static_type: type[nn.Module]
    """The class that ``to_static_op`` gives: the one converted from, else ``static_op_factory``."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._init_dynamic()

    @property
    def static_op_factory(self) -> type[nn.Module]:
        """The plain operation."""
        raise NotImplementedError

    @classmethod
    def convert_from(cls: type[D], module: nn.Module) -> D:
        """A dynamic operation that shares ``module``'s parameters, buffers, hooks, mode and attributes.

        Raises:
            ModelError: this operation cannot be made of ``module``.
        """
        cls.check_convertible(module)
        new: Any = cls.__new__(cls)
        new.__dict__.update(_own_containers(module.__dict__))
        new._init_dynamic(type(module))
        return new

    @classmethod
    def convert_in_place(cls: type[D], module: nn.Module) -> D:
        """Turn ``module`` itself into a dynamic operation, so that whoever holds it holds that.

        Raises:
            ModelError: this operation cannot be made of ``module``.
        """
        cls.check_convertible(module)
        static_type = type(module)
        operation: Any = module
        operation.__class__ = cls
        operation._init_dynamic(static_type)
        return operation

    @classmethod
    def check_convertible(cls, module: nn.Module) -> None:
        """Raise ``ModelError`` where ``module`` is no operation that this one can stand in for."""

    def _init_dynamic(self, static_type: type[nn.Module] | None = None) -> None:
        """Set up what is dynamic; called once, when the plain operation is complete."""
        self.mutable_attrs = nn.ModuleDict()
        self.static_type = static_type or self.static_op_factory

    def register_mutable_attr(self, attr: str, mutable: BaseMutable) -> None:
        """Let the attribute ``attr`` follow ``mutable``.

        Raises:
            ModelError: the operation has no such attribute, another mutable holds it, or ``mutable`` does not fit.
        """
        key = self._attr_key(attr)
        held = self.get_mutable_attr(attr)
        if held is mutable:
            return
        if held is not None:
            raise ModelError(f"{type(self).__name__}: '{attr}' has a mutable already: {held.name}")
        self._check_mutable(key, mutable)
        self.mutable_attrs[key] = mutable

    def get_mutable_attr(self, attr: str) -> BaseMutable | None:
        """The mutable that ``attr`` follows; None: there is none."""
        return self.mutable_attrs._modules.get(self._attr_key(attr))  # type: ignore[return-value]

    def to_static_op(self) -> nn.Module:
        """The plain operation of the current choice, with parameters of its own, in the same mode, dtype and place.

        Raises:
            ModelError: a mutable is not fixed.
        """
        self.check_if_mutables_fixed()
        static = self._bare()
        self._slice_into(static)
        return static

    def to_plain_op(self) -> nn.Module:
        """The plain operation of full width, in which the kept channels have the values of the current choice."""
        plain = self._bare()
        self._fill_into(plain)
        return plain

    def _bare(self) -> Any:
        """The plain operation with this one's tensors and attributes, as far as they are not dynamic."""
        bare: Any = self.static_type.__new__(self.static_type)
        bare.__dict__.update(_own_containers(self.__dict__))
        for name in self.dynamic_state:
            bare.__dict__.pop(name, None)
        bare._modules.pop("mutable_attrs", None)
        return bare

    def check_if_mutables_fixed(self) -> None:
        """Raise ``ModelError`` where a mutable may still change."""
        for attr, mutable in self.mutable_attrs.items():
            # Containers and derived mutables hold others'; those are checked where they are registered.
            if isinstance(mutable, BaseMutable) and mutable.sources == (mutable,) and not mutable.is_fixed:
                raise ModelError(
                    f"{type(self).__name__}: the mutable '{mutable.name}' of '{attr}' is not fixed",
                    hint="fix it with load_fix_subnet() or fix_chosen()",
                )

    def _slice_into(self, static: Any) -> None:
        """Set the sliced parameters and changed attributes on the plain operation."""
        raise NotImplementedError

    def _fill_into(self, plain: Any) -> None:
        """Set what differs from this operation's own tensors on the plain operation of full width."""

    def _check_mutable(self, key: str, mutable: BaseMutable) -> None:
        """Raise ``ModelError`` where ``mutable`` does not fit the attribute ``key``."""

    def _attr_key(self, attr: str) -> str:
        key = self.attr_mappings.get(attr, attr)
        if key not in self.accepted_mutable_attrs:
            known = {*self.accepted_mutable_attrs, *self.attr_mappings}
            raise ModelError(f"{type(self).__name__} has no mutable attribute '{attr}'; {nearest(attr, known)}")
        return key

    def _choice(self, key: str, default: Any) -> Any:
        """Current choice of the mutable of ``key``; ``default`` where there is none."""
        return self.mutable_attrs[key].current_choice if key in self.mutable_attrs else default


class DynamicChannelMixin(DynamicMixin):
    """Base of dynamic operations with mutable channels.

    An operation runs *sliced*: its input has the kept channels alone, and so has its output. With ``masked`` set the
    tensors around it have the full width: it takes the kept channels out of its input, runs sliced, and puts zeros
    where channels are not kept. Both give the same numbers for the kept channels.
    """

    attr_mappings: ClassVar[dict[str, str]] = {"in_channels": "in_channels", "out_channels": "out_channels"}
    in_dim: ClassVar[int] = 1
    """Channel dimension of the input."""
    out_dim: ClassVar[int] = 1
    """Channel dimension of the output."""

    masked: bool = False

    def width_of(self, attr: str) -> int:
        """Full number of channels of ``attr``."""
        return int(getattr(self, self._attr_key(attr)))

    def mask_of(self, attr: str) -> Tensor | None:
        """Bool mask of the channels of ``attr`` that are kept; None where all are."""
        mutable = self.get_mutable_attr(attr)
        if mutable is None:
            return None
        mask = channels(mutable)
        return None if bool(mask.all()) else mask

    def channel_mask(self, attr: str) -> Tensor:
        """Bool mask of the channels of ``attr`` that are kept, also where all are."""
        mask = self.mask_of(attr)
        return torch.ones(self.width_of(attr), dtype=torch.bool) if mask is None else mask

    @property
    def mutable_in_channels(self) -> BaseMutable | None:
        """What the input channels follow."""
        return self.get_mutable_attr("in_channels")

    @property
    def mutable_out_channels(self) -> BaseMutable | None:
        """What the output channels follow."""
        return self.get_mutable_attr("out_channels")

    def _run(self, x: Tensor) -> Tensor:
        """Run the operation on what it is given, sliced or masked."""
        if not self.masked:
            return self._forward_sliced(x)
        in_mask, out_mask = self._masks()
        return put(self._forward_sliced(take(x, in_mask, self.in_dim)), out_mask, self.out_dim)

    def _masks(self) -> tuple[Tensor | None, Tensor | None]:
        """Masks of the input and the output; None where all channels are kept."""
        return self.mask_of("in_channels"), self.mask_of("out_channels")

    def _forward_sliced(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def _check_mutable(self, key: str, mutable: BaseMutable) -> None:
        if key not in self.attr_mappings.values():
            return
        if not has_mask(mutable):
            raise ModelError(
                f"{type(self).__name__}: '{key}' needs a mutable of channels, got {type(mutable).__name__} "
                f"'{mutable.name}', which has no mask"
            )
        width = channels(mutable).numel()
        if width != self.width_of(key):
            raise ModelError(
                f"{type(self).__name__}: expected a mask of {self.width_of(key)} channels for '{key}', "
                f"got {width} from mutable '{mutable.name}'"
            )


def sliced_parameter(parameter: Tensor, *masks: Tensor | None) -> nn.Parameter:
    """A new parameter: ``parameter`` with ``masks[i]`` applied to dimension i."""
    value = parameter.detach()
    for dim, mask in enumerate(masks):
        value = take(value, mask, dim)
    return nn.Parameter(_owned(value), requires_grad=parameter.requires_grad)


def sliced_buffer(buffer: Tensor, mask: Tensor | None) -> Tensor:
    """A new buffer: ``buffer`` with ``mask`` applied to its first dimension."""
    return _owned(take(buffer.detach(), mask, 0))


def _owned(value: Tensor) -> Tensor:
    return value.clone(memory_format=torch.contiguous_format)


def _own_containers(attributes: dict[str, Any]) -> dict[str, Any]:
    """The same attributes, in dictionaries of one's own, as far as they are dictionaries."""
    return {name: copy.copy(value) if isinstance(value, dict) else value for name, value in attributes.items()}
