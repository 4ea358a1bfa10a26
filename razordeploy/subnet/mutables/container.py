"""The channels of one axis of one operation, put together from several mutables."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.channel import BaseMutableChannel
from razordeploy.subnet.mutables.formulas import channels
from razordeploy.subnet.mutables.index_dict import IndexDict


class MutableChannelContainer(BaseMutableChannel):
    """A mask over an operation's axis: ranges follow their mutables, the rest is always kept.

    The mutables are held by range and not as submodules, because the operations of one unit share them. Ranges may
    not overlap, except as ``overlays``: a channel shuffle interleaves the channels of two units on one axis, and there
    a channel stays if all who cover it keep it.
    """

    def __init__(self, num_channels: int, alias: str | None = None, init_cfg: dict[str, Any] | None = None) -> None:
        super().__init__(num_channels, alias, init_cfg)
        self.mutable_channels: IndexDict[BaseMutable] = IndexDict()
        self.overlays: list[tuple[int, int, BaseMutable]] = []

    @property
    def sources(self) -> tuple[BaseMutable, ...]:
        """The mutables with a search space of their own that decide the mask, each once."""
        held = [*self.mutable_channels.values(), *(mutable for _, _, mutable in self.overlays)]
        return tuple({id(source): source for mutable in held for source in mutable.sources}.values())

    @property
    def choices(self) -> list[Any]:
        """The current mask: what may be chosen is up to the mutables inside."""
        return [self.current_mask]

    @property
    def current_choice(self) -> Any:
        """The mask."""
        return self.current_mask

    @current_choice.setter
    def current_choice(self, choice: Any) -> NoReturn:
        raise ModelError(f"the container '{self.name}' follows the mutables in it: set theirs instead")

    @property
    def current_mask(self) -> Tensor:
        """Bool (num_channels,)."""
        parts = [(start, end, channels(mutable)) for (start, end), mutable in self.mutable_channels.items()]
        if len(parts) == 1 and not self.overlays and parts[0][2].numel() == self.num_channels:
            return parts[0][2]
        parts += [(start, end, channels(mutable)) for start, end, mutable in self.overlays]
        mask = torch.ones(self.num_channels, dtype=torch.bool, device=parts[0][2].device if parts else None)
        for start, end, part in parts:
            mask[start:end] &= part
        return mask

    def register_mutable(self, mutable_channel: BaseMutable, start: int, end: int, overlay: bool = False) -> None:
        """Let channels ``[start, end)`` follow ``mutable_channel``.

        Args:
            mutable_channel: channels, or channels derived from others.
            start: first channel.
            end: one past the last.
            overlay: the range may overlap others.

        Raises:
            ModelError: the range is not inside the container, is not as long as the mask, or overlaps another's.
        """
        if not 0 <= start < end <= self.num_channels:
            raise ModelError(
                f"container '{self.name}': expected a range within (0, {self.num_channels}), got ({start}, {end})"
            )
        width = channels(mutable_channel).numel()
        if width != end - start:
            raise ModelError(
                f"container '{self.name}': the range ({start}, {end}) needs a mask of {end - start} channels, "
                f"mutable '{mutable_channel.name}' has one of {width}"
            )
        if overlay:
            self.overlays.append((start, end, mutable_channel))
        else:
            self.mutable_channels[(start, end)] = mutable_channel

    @classmethod
    def register_mutable_channel_to_module(
        cls, module: nn.Module, mutable: BaseMutable, is_to_output_channel: bool = True, start: int = 0, end: int = -1
    ) -> None:
        """Let channels of a dynamic operation follow ``mutable``; its container is made where it has none.

        Args:
            module: a dynamic operation.
            mutable: channels, or channels derived from others.
            is_to_output_channel: its output channels, else its input channels.
            start: first channel.
            end: one past the last; -1: ``start`` plus the width of ``mutable``.
        """
        operation: Any = module
        attr = "out_channels" if is_to_output_channel else "in_channels"
        container = operation.get_mutable_attr(attr)
        if container is None:
            container = cls(operation.width_of(attr))
            operation.register_mutable_attr(attr, container)
        if not isinstance(container, MutableChannelContainer):
            raise ModelError(f"'{attr}' of {type(module).__name__} is {type(container).__name__}, no container")
        container.register_mutable(mutable, start, start + channels(mutable).numel() if end == -1 else end)

    def fix_chosen(self, chosen: Any = None) -> None:
        """Nothing: fixing the mutables inside fixes this."""

    @property
    def is_fixed(self) -> bool:
        """True once every mutable inside is fixed."""
        return all(mutable.is_fixed for mutable in self.sources)

    @is_fixed.setter
    def is_fixed(self, value: bool) -> None:
        raise ModelError(f"the container '{self.name}' is fixed through the mutables in it only")
