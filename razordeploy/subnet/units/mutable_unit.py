"""Channels that are kept or removed together, and the mutable that says which."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from razordeploy.errors import ModelError
from razordeploy.subnet.dynamic_ops.base import DynamicChannelMixin, DynamicMixin
from razordeploy.subnet.dynamic_ops.parameters import DynamicParametersMixin, dynamic_parameters
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.channel import (
    BaseMutableChannel,
    SequentialMutableChannel,
    SimpleMutableChannel,
)
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.mutables.derived import DerivedMutable
from razordeploy.subnet.mutables.formulas import Placed
from razordeploy.subnet.units.channel import Channel
from razordeploy.subnet.units.conversion import DynamicMap, dynamic_class


class ChannelUnit(nn.Module):
    """Channels of several layers that depend on each other.

    Args:
        num_channels: channels of the unit; a layer may hold each of them several times.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        if isinstance(num_channels, bool) or not isinstance(num_channels, int) or num_channels < 1:
            raise ModelError(f"expected num_channels of at least 1, got {num_channels!r}")
        self.num_channels = num_channels
        self.output_related: list[Channel] = []
        self.input_related: list[Channel] = []
        self.reason: str | None = None
        """Why the unit has to keep all of its channels; None: it need not."""
        self._name: str | None = None

    @property
    def name(self) -> str:
        """``module.path_(start, end)_channels`` of the first layer that makes the channels."""
        if self._name is None:
            channels = self.output_related + self.input_related
            first = f"{channels[0].name}_({channels[0].start}, {channels[0].end})" if channels else "unitx"
            return f"{first}_{self.num_channels}"
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = value

    @property
    def alias(self) -> str:
        """The name."""
        return self.name

    def aliases(self) -> list[str]:
        """The names that the unit would have by its other producing layers."""
        places = ((channel.name, channel.start, channel.end) for channel in self.output_related)
        return [f"{path}_({start}, {end})_{self.num_channels}" for path, start, end in places]

    def add_output_related(self, channel: Channel) -> None:
        """Add channels that a layer makes."""
        channel.is_output_channel = True
        self.output_related.append(self._checked(channel))

    def add_input_related(self, channel: Channel) -> None:
        """Add channels that a layer reads."""
        channel.is_output_channel = False
        self.input_related.append(self._checked(channel))

    def add(self, channel: Channel) -> None:
        """Add channels to the side they are on."""
        (self.output_related if channel.is_output_channel else self.input_related).append(self._checked(channel))

    def _checked(self, channel: Channel) -> Channel:
        channel.elements(self.num_channels)
        return channel

    @property
    def channels(self) -> list[Channel]:
        """Both sides."""
        return self.output_related + self.input_related

    def config_template(self, with_init_args: bool = False, with_channels: bool = False) -> dict[str, Any]:
        """What ``init_from_cfg`` makes an equal unit of.

        Args:
            with_init_args: with the arguments of the class.
            with_channels: with the channels of every layer, so that no tracing is needed.
        """
        config: dict[str, Any] = {}
        if with_init_args:
            config["init_args"] = self.init_args()
        if with_channels:
            config["channels"] = {
                "input_related": [channel.config_template() for channel in self.input_related],
                "output_related": [channel.config_template() for channel in self.output_related],
            }
        if self.reason is not None:
            config["reason"] = self.reason
        return config

    def init_args(self) -> dict[str, Any]:
        """The arguments that this unit was made with."""
        return {"num_channels": self.num_channels}

    def extra_repr(self) -> str:
        """The name."""
        return f"name={self.name}"


class MutableChannelUnit(ChannelUnit):
    """A channel unit that can be pruned; base of all of them.

    Its mask is part of its state dict, so that a pruned model resumes.
    """

    dynamic_ops: ClassVar[DynamicMap] = {}
    """Layers that the unit wants operations of its own for."""

    mutable_channel: BaseMutableChannel

    @classmethod
    def init_from_cfg(cls, model: nn.Module, config: Mapping[str, Any]) -> MutableChannelUnit:
        """The unit of a config: ``init_args``, and where given ``channels``, ``choice`` and ``reason``.

        Raises:
            ModelError: an argument that the unit does not have, a layer that ``model`` does not have, or a choice that
                does not fit.
        """
        unit = cls.build(config.get("init_args", {}))
        sides = config.get("channels", {})
        for side, is_output in (("output_related", True), ("input_related", False)):
            for entry in sides.get(side, ()):
                entry = {"start": 0, "end": unit.num_channels, **entry, "is_output_channel": is_output}
                unit.add(Channel.init_from_cfg(model, entry))
        unit.reason = config.get("reason")
        if "choice" in config:
            unit.current_choice = config["choice"]
        return unit

    @classmethod
    def build(cls, init_args: Mapping[str, Any]) -> MutableChannelUnit:
        """A unit without channels, from the arguments of a config."""
        try:
            return cls(**init_args)
        except TypeError as error:
            raise ModelError(f"{cls.__name__}: {error}; got init_args {dict(init_args)}") from error

    @classmethod
    def init_from_mutable_channel(cls, mutable_channel: BaseMutableChannel) -> MutableChannelUnit:
        """A unit whose mask is that of a channel mutable which the model holds."""
        unit = cls(mutable_channel.num_channels)
        unit.mutable_channel = mutable_channel
        return unit

    @classmethod
    def init_from_predefined_model(cls, model: nn.Module) -> list[MutableChannelUnit]:
        """A unit for each channel mutable that the dynamic operations of ``model`` follow, in their order."""
        units: dict[int, MutableChannelUnit] = {}
        paths = {id(module): path for path, module in model.named_modules() if isinstance(module, BaseMutable)}
        for path, module in model.named_modules():
            if not isinstance(module, DynamicMixin):
                continue
            for attr, mutable in module.mutable_attrs.items():
                for source in mutable.sources if isinstance(mutable, BaseMutable) else ():
                    if isinstance(source, BaseMutableChannel):
                        unit = units.get(id(source)) or cls.init_from_mutable_channel(source)
                        unit.name = source.alias or paths.get(id(source)) or unit._name or f"{path}.{attr}"
                        units[id(source)] = unit
                        unit._note_operation(path, module, attr)
        return list(units.values())

    def _note_operation(self, path: str, module: DynamicMixin, attr: str) -> None:
        """Remember an operation that follows the unit's mutable, as far as templates and ``is_mutable`` ask."""
        for side, is_output in (("out_channels", True), ("in_channels", False)):
            if module.attr_mappings.get(side) == attr:
                channel = Channel(name=path, module=module, start=0, end=self.num_channels, is_output_channel=is_output)
                (self.output_related if is_output else self.input_related).append(channel)

    def adopt_mask(self, mutable_channel: SimpleMutableChannel) -> None:
        """Take ``mutable_channel`` as the unit's own, and save its mask with the unit."""
        mutable_channel.give_to_unit()
        self.mutable_channel = mutable_channel

    @property
    def mutable_prefix(self) -> str:
        """``channel``."""
        return "channel"

    @property
    def is_mutable(self) -> bool:
        """Tell whether channels of the unit may go: something makes them, something reads them, and all can shrink."""
        return self.reason is None and bool(self.output_related) and bool(self.input_related)

    @property
    def is_fixed(self) -> bool:
        """True once the choice is final."""
        return self.mutable_channel.is_fixed

    @property
    def mask(self) -> Tensor:
        """Bool (num_channels,): the channels that are kept."""
        return self.mutable_channel.current_mask

    @property
    def segments(self) -> tuple[int, ...]:
        """Lengths of the parts of the unit of which each has to keep the same share; one where there are no parts.

        A channel shuffle cuts its result at a fixed share, so as many channels have to stay on either side.
        """
        cuts = {0, self.num_channels}
        for channel in self.channels:
            for span in channel.spans:
                cuts |= {span.first, span.first + span.count}
        return tuple(stop - start for start, stop in itertools.pairwise(sorted(cuts)))

    @property
    def segment_step(self) -> int:
        """What a number of channels has to be a multiple of so that every segment can keep its share."""
        return self.num_channels // math.gcd(self.num_channels, *self.segments)

    def config_template(self, with_init_args: bool = False, with_channels: bool = False) -> dict[str, Any]:
        """As of every unit, and the current choice."""
        config = super().config_template(with_init_args, with_channels)
        config["choice"] = self.current_choice
        return config

    @property
    def current_choice(self) -> Any:
        """The choice in use."""
        raise NotImplementedError

    @current_choice.setter
    def current_choice(self, choice: Any) -> None:
        raise NotImplementedError

    def sample_choice(self) -> Any:
        """A random choice."""
        raise NotImplementedError

    @property
    def max_choice(self) -> Any:
        """All channels."""
        raise NotImplementedError

    @property
    def min_choice(self) -> Any:
        """The fewest channels."""
        raise NotImplementedError

    def fix_chosen(self, choice: Any = None) -> None:
        """Keep ``choice``, or the current choice where it is None, for good."""
        if choice is not None:
            self.current_choice = choice
        if not self.mutable_channel.is_fixed:
            self.mutable_channel.fix_chosen()

    def restore_mask(self, mask: Tensor) -> None:
        """Set the mask (num_channels,) itself, as it was taken from ``mask`` before."""
        mutable = self.mutable_channel
        mutable.current_choice = int(mask.sum()) if isinstance(mutable, SequentialMutableChannel) else mask

    def prepare_for_pruning(self, model: nn.Module) -> None:
        """Make the unit's layers dynamic, in place, and let them follow its mutable."""
        self._replace_with_dynamic_ops(model, self.dynamic_ops)
        self._register_mutable_channel(self.mutable_channel)

    def _replace_with_dynamic_ops(self, model: nn.Module, dynamic_ops: DynamicMap) -> None:
        for channel in self.channels:
            module = model.get_submodule(channel.name)
            channel.module = module
            if channel.tensor is not None:
                if not isinstance(module, DynamicParametersMixin):
                    dynamic_parameters(type(module)).convert_in_place(module)  # type: ignore[arg-type]
            elif not isinstance(module, DynamicChannelMixin):
                found = dynamic_class(module, dynamic_ops)
                if found is not None:
                    found.convert_in_place(module)
                elif next(module.parameters(), None) is not None:
                    raise ModelError(
                        f"unit '{self.name}': '{channel.name}' is a {type(module).__name__}, whose channels "
                        "cannot be sliced"
                    )

    def _register_mutable_channel(self, mutable: BaseMutableChannel) -> None:
        for channel in self.channels:
            container = self._container(channel)
            if container is None:
                continue
            placed = self._placed(mutable, channel)
            key = (channel.start, channel.end)
            held = container.mutable_channels.get(key)
            if held is not None and held.sources == placed.sources:
                # A batch norm both makes and reads its channels.
                continue
            container.register_mutable(placed, *key, overlay=channel.is_partial)

    def _container(self, channel: Channel) -> MutableChannelContainer | None:
        module = channel.module
        if channel.tensor is not None and isinstance(module, DynamicParametersMixin):
            container = module.container_of(channel.tensor, channel.dim or 0)
        elif isinstance(module, DynamicChannelMixin):
            attr = "out_channels" if channel.is_output_channel else "in_channels"
            held = module.get_mutable_attr(attr)
            if held is None:
                held = MutableChannelContainer(module.width_of(attr))
                module.register_mutable_attr(attr, held)
            if not isinstance(held, MutableChannelContainer):
                raise ModelError(f"unit '{self.name}': '{attr}' of '{channel.name}' has a mutable of its own already")
            container = held
        else:
            return None
        if channel.end > container.num_channels:
            raise ModelError(
                f"unit '{self.name}': '{channel.name}' has {container.num_channels} channels, not "
                f"({channel.start}, {channel.end}): the subnet is of another model, or the model has changed since"
            )
        return container

    def _placed(self, mutable: BaseMutableChannel, channel: Channel) -> BaseMutable:
        if not channel.spans:
            if channel.num_channels == self.num_channels:
                return mutable
            return mutable * (channel.num_channels // self.num_channels)
        formula = Placed(mutable, channel.elements(self.num_channels))
        return DerivedMutable(formula.choice, formula.mask)
