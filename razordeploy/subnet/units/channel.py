"""Where the channels of a unit lie in the layers that make or read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.importance import positions
from razordeploy.subnet.tracer.unit import Member, PrunableUnit, Span

_SPAN_DEFAULTS = {f.name: f.default for f in fields(Span) if f.name != "count"}


@dataclass(kw_only=True, eq=False)
class Channel:
    """A range of the input or output channels of one module, or of one dimension of one of its parameters."""

    name: str
    """Path of the module."""
    module: nn.Module | None = field(default=None, repr=False)
    """The module itself; None: not found yet."""
    start: int
    """First position of the range."""
    end: int
    """One past the last."""
    is_output_channel: bool = True
    """True: the module makes these channels; False: it reads them."""
    spans: tuple[Span, ...] = ()
    """Where each of the unit's channels lies; none: one after another, each as often in place as the range is longer
    than the unit."""
    tensor: str | None = None
    """Parameter or buffer of a module that is no layer; None: the layer's channels."""
    dim: int | None = None
    """Its dimension."""

    @property
    def num_channels(self) -> int:
        """Length of the range."""
        return self.end - self.start

    @property
    def is_partial(self) -> bool:
        """True where the range also holds positions of other units."""
        return bool(self.spans)

    def elements(self, num_channels: int) -> Tensor:
        """For each position of the range the unit's channel there, int64 (end - start,); -1: another unit's."""
        index = torch.full((self.num_channels,), -1, dtype=torch.int64)
        for span in self.spans or (self._plain_span(num_channels),):
            place = positions(span) - self.start
            index[place] = torch.arange(span.first, span.first + span.count)[:, None].expand_as(place)
        return index

    def _plain_span(self, num_channels: int) -> Span:
        if self.num_channels % num_channels:
            raise ModelError(
                f"channels ({self.start}, {self.end}) of '{self.name}' are no multiple of the unit's {num_channels}"
            )
        block = self.num_channels // num_channels
        return Span(count=num_channels, offset=self.start, stride=block, block=block)

    def config_template(self) -> dict[str, Any]:
        """The entry of a unit's config, in mmrazor's keys; ``spans``, ``tensor`` and ``dim`` only where needed."""
        config: dict[str, Any] = {
            "name": self.name,
            "start": self.start,
            "end": self.end,
            "is_output_channel": self.is_output_channel,
        }
        if self.spans:
            config["spans"] = [_span_config(span) for span in self.spans]
        if self.tensor is not None:
            config |= {"tensor": self.tensor, "dim": self.dim}
        return config

    @classmethod
    def init_from_cfg(cls, model: nn.Module, config: Mapping[str, Any]) -> Channel:
        """The channel that ``config_template()`` wrote.

        Raises:
            ModelError: a key is missing or unknown, or ``model`` has no such module.
        """
        known = {f.name for f in fields(cls)} - {"module"} | {"expand_ratio"}
        for key in config:
            if key not in known:
                raise ModelError(f"unknown key '{key}' in a channel of a unit", hint=nearest(key, known))
        if not {"name", "start", "end"} <= config.keys():
            raise ModelError(f"expected name, start and end in a channel of a unit, got {dict(config)}")
        modules = dict(model.named_modules(remove_duplicate=False))
        name = config["name"]
        if name not in modules:
            raise ModelError(
                f"the subnet has channels of '{name}', which {type(model).__name__} has not: "
                "it is of another model, or the model has changed since",
                hint=nearest(name, modules),
            )
        channel = cls(
            name=name,
            module=modules[name],
            start=int(config["start"]),
            end=int(config["end"]),
            is_output_channel=bool(config.get("is_output_channel", True)),
            spans=tuple(_span(entry) for entry in config.get("spans", ())),
            tensor=config.get("tensor"),
            dim=config.get("dim"),
        )
        if not 0 <= channel.start < channel.end:
            raise ModelError(f"expected 0 <= start < end in a channel of '{name}', got {channel.start}, {channel.end}")
        return channel


def _span_config(span: Span) -> dict[str, Any]:
    config: dict[str, Any] = {"count": span.count}
    for key, default in _SPAN_DEFAULTS.items():
        if getattr(span, key) != default:
            config[key] = getattr(span, key)
    if "repeats" in config:
        config["repeats"] = [list(loop) for loop in span.repeats]
    return config


def _span(config: Mapping[str, Any]) -> Span:
    unknown = set(config) - {"count", *_SPAN_DEFAULTS}
    if unknown or "count" not in config:
        raise ModelError(f"expected a span with a count and {sorted(_SPAN_DEFAULTS)}, got {dict(config)}")
    loops = tuple((int(times), int(distance)) for times, distance in config.get("repeats", ()))
    return Span(**{**config, "repeats": loops})


def channels_of(unit: PrunableUnit, model: nn.Module, layers: Iterable[str]) -> list[Channel]:
    """The channels of a unit that the tracer found, in the order of execution.

    Args:
        unit: the unit.
        model: the model it was found in.
        layers: paths of the modules whose channels are those of a layer; of other modules each tensor has its own.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    known = set(layers)
    gathered: dict[tuple[str, bool, str | None, int | None], dict[Span, None]] = {}
    for member in unit.members:
        is_layer = member.module in known
        name = None if is_layer else member.tensor.rpartition(".")[2]
        key = (member.module, member.is_output, name, None if is_layer else member.dim)
        gathered.setdefault(key, {}).update(dict.fromkeys(_whole_axis(member)))
    for (path, is_output, tensor, dim), spans in list(gathered.items()):
        if is_output and tensor is None and _is_depthwise(modules[path]):
            # Its weight has no dimension for what it reads.
            gathered.setdefault((path, False, tensor, dim), spans)
    return [
        _channel(unit.channels, path, modules[path], is_output, tensor, dim, tuple(spans))
        for (path, is_output, tensor, dim), spans in gathered.items()
    ]


def _is_depthwise(module: nn.Module) -> bool:
    if not isinstance(module, nn.modules.conv._ConvNd):
        return False
    return module.groups > 1 and module.groups == module.in_channels == module.out_channels


def _whole_axis(member: Member) -> list[Span]:
    """Spans over all input channels of a grouped convolution, whose weight has those of one group."""
    shift = (member.group or 0) * member.size
    return [
        Span(
            first=span.first,
            count=span.count,
            offset=span.offset + shift,
            stride=span.stride,
            block=span.block,
            repeats=span.repeats,
        )
        for span in member.spans
    ]


def _channel(
    width: int,
    path: str,
    module: nn.Module,
    is_output: bool,
    tensor: str | None,
    dim: int | None,
    spans: tuple[Span, ...],
) -> Channel:
    places = [positions(span) for span in spans]
    start = min(int(place.min()) for place in places)
    end = max(int(place.max()) for place in places) + 1
    channel = Channel(
        name=path, module=module, start=start, end=end, is_output_channel=is_output, spans=spans, tensor=tensor, dim=dim
    )
    if (end - start) % width == 0:
        plain = Channel(name=path, start=start, end=end)
        if torch.equal(plain.elements(width), channel.elements(width)):
            channel.spans = ()
    return channel
