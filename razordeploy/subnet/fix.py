"""Subnets as files: export what is chosen, and make a model that."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.channel_graph import ChannelGraph, channel_graph
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.fix_mutables import dump_mutables, fix_mutables, is_of_mutables
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.parse import CONFIG
from razordeploy.subnet.mutators.parse import example_inputs as demo_inputs
from razordeploy.subnet.mutators.table import MUTATORS
from razordeploy.subnet.older_files import is_of_layers, modernised, widths_of_layers
from razordeploy.subnet.slice import slice_model
from razordeploy.subnet.static import become, make_static, static_copy

MODES = ("mutable", "mutator")
DEFAULT_SHAPE = (1, 3, 224, 224)
"""Shape of the input that a model is traced with where nobody gives one, as of mmrazor."""


def export_fix_subnet(
    model: nn.Module,
    export_subnet_mode: str | None = None,
    slice_weight: bool = False,
    export_channel: bool = False,
    *,
    mutator: ChannelMutator | None = None,
    example_inputs: Any = None,
) -> tuple[dict[str, Any], nn.Module | None]:
    """What ``model`` has chosen, as a subnet file holds it, and the plain model of that; ``model`` stays as it is.

    Args:
        model: a supernet, or an algorithm with an ``architecture`` and perhaps a ``mutator``.
        export_subnet_mode: ``mutable``: every mutable by path or alias (NAS); ``mutator``: the template of the channel
            mutator (pruning); None: ``mutator`` where there is a channel mutator.
        slice_weight: also make the plain, sliced model.
        export_channel: with the layers of each unit, so that loading needs no tracing; for ``mutator``.
        mutator: the channel mutator, where ``model`` does not hold it.
        example_inputs: inputs of the model, where slicing needs to trace it anew.

    Returns:
        The subnet, to be written as JSON or YAML, and the static architecture, or None without ``slice_weight``. Its
        modules keep their modes, types and devices.

    Raises:
        ModelError: nothing can be exported in this mode, or something is not chosen yet.
    """
    architecture = _architecture(model)
    mutator = mutator or _channel_mutator(model)
    mode = export_subnet_mode or ("mutable" if mutator is None else "mutator")
    if mode not in MODES:
        raise ModelError(f"expected export_subnet_mode to be one of {MODES}, got {mode!r}")
    if mode == "mutable":
        subnet = dump_mutables(architecture)
        if not subnet:
            raise ModelError(
                f"{type(architecture).__name__} has no mutables to export",
                hint="use export_subnet_mode='mutator'" if mutator is not None else None,
            )
        return subnet, load_fix_subnet(copy.deepcopy(architecture), subnet, "mutable") if slice_weight else None
    if mutator is None:
        raise ModelError(
            f"{type(model).__name__} has no channel mutator to export", hint="use export_subnet_mode='mutable'"
        )
    # Without tracing and without channels nobody could load the file.
    with_channels = export_channel or mutator.parse.way == CONFIG
    subnet = mutator.config_template(with_channels=with_channels, with_unit_init_args=True)
    if not slice_weight:
        return subnet, None
    return subnet, static_copy(architecture, mutator, _inputs(mutator, architecture, example_inputs))


def load_fix_subnet(
    model: nn.Module,
    subnet: str | Path | Mapping[str, Any],
    load_subnet_mode: str | None = None,
    prefix: str = "",
    extra_prefix: str = "",
    *,
    example_inputs: Any = None,
) -> nn.Module:
    """Make ``model`` the subnet of a file, in place: chosen, sliced and plain.

    Args:
        model: the supernet or, for pruning, the unpruned model.
        subnet: a JSON or YAML file or its content: of mutables by path or alias, a channel mutator's template, a
            number or ratio by unit (the channels of the largest filters stay), or one of mmrazor 0.x.
        load_subnet_mode: ``mutable`` or ``mutator``; None tells by the content.
        prefix: what the model's paths begin with and the file's do not.
        extra_prefix: what the file's paths begin with and the model's do not.
        example_inputs: inputs of the model, in place of the ``demo_input`` of the file.

    Returns:
        ``model``.

    Raises:
        ModelError: the file cannot be read, is of another model or of another width, or names a choice that is none.
    """
    if prefix and extra_prefix:
        raise ModelError(f"prefix '{prefix}' and extra_prefix '{extra_prefix}' exclude each other")
    content = modernised(dict(subnet) if isinstance(subnet, Mapping) else read_mapping(subnet))
    if not content:
        raise ModelError("the subnet is empty")
    mode = load_subnet_mode or ("mutable" if is_of_mutables(content) else "mutator")
    if mode not in MODES:
        raise ModelError(f"expected load_subnet_mode to be one of {MODES}, got {mode!r}")
    if mode == "mutable":
        fix_mutables(model, content, prefix, extra_prefix)
        return make_static(model)
    if is_of_layers(content) or is_of_widths(content):
        return _narrowed(model, content, example_inputs)
    mutator = _mutator_of(content, example_inputs)
    mutator.prepare_from_supernet(model)
    mutator.fix_channel_mutables()
    if mutator.forward_mode == "slice":
        return make_static(model)
    become(model, static_copy(model, mutator, _inputs(mutator, model, example_inputs)))
    return model


def is_of_widths(content: Mapping[str, Any]) -> bool:
    """Tell whether a subnet is a number or ratio by unit."""
    return all(isinstance(width, int | float) and not isinstance(width, bool) for width in content.values())


def check_units(graph: ChannelGraph, names: Iterable[str], model: str) -> None:
    """Refuse widths of units that the model has not.

    Raises:
        ModelError: with the nearest name that it has.
    """
    for name in names:
        if name not in graph.units:
            raise ModelError(
                f"the subnet has a unit '{name}', which {model} has not: it is of another model, of another width, "
                "or the model has changed since",
                hint=nearest(str(name), graph.prunable),
            )


def _narrowed(model: nn.Module, content: Mapping[str, Any], example_inputs: Any) -> nn.Module:
    inputs: Any = torch.rand(DEFAULT_SHAPE) if example_inputs is None else example_inputs
    graph = channel_graph(model, inputs)
    name = type(model).__name__
    choice: Mapping[str, Any] = content
    if is_of_layers(content):
        choice = widths_of_layers(graph, content, name)
    else:
        check_units(graph, content, name)
    if choice:
        become(model, slice_model(model, graph, choice, example_inputs=inputs).module)
    return model


def _architecture(model: nn.Module) -> nn.Module:
    inner = getattr(model, "architecture", None)
    return inner if isinstance(inner, nn.Module) else model


def _channel_mutator(model: nn.Module) -> ChannelMutator | None:
    found = getattr(model, "mutator", None)
    return found if isinstance(found, ChannelMutator) else None


def _inputs(mutator: ChannelMutator, model: nn.Module, given: Any) -> tuple[Tensor, ...] | None:
    if given is not None:
        return tuple(given) if isinstance(given, list | tuple) else (given,)
    return demo_inputs(mutator.parse, model)


def _mutator_of(content: Mapping[str, Any], inputs: Any) -> ChannelMutator:
    """The mutator that a template, a mapping of units or one of choices describes."""
    config: dict[str, Any] = dict(content)
    if "channel_unit_cfg" not in config:
        entries = {k: v if isinstance(v, Mapping) else {"choice": v} for k, v in config.items()}
        config = {"channel_unit_cfg": {"units": entries}}
    config.pop("_scope_", None)
    kind = str(config.pop("type", "ChannelMutator")).rpartition(".")[2]
    found = MUTATORS.get(kind)
    if found is None or not issubclass(found, ChannelMutator):
        channel_mutators = [name for name, cls in MUTATORS.items() if issubclass(cls, ChannelMutator)]
        raise ModelError(f"the subnet is of an unknown mutator '{kind}'; {nearest(kind, channel_mutators)}")
    if inputs is not None:
        given = tuple(inputs) if isinstance(inputs, list | tuple) else (inputs,)
        config["parse_cfg"] = {**config.get("parse_cfg", {"type": "ChannelAnalyzer"}), "demo_input": given}
    try:
        return found(**config)
    except TypeError as error:
        raise ModelError(f"the subnet's {kind}: {error}") from error
