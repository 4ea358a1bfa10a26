"""Resolve, per operation, what the backend's YAML and the recipe say together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import fx

from razordeploy.capture.graph import CapturedModel, module_path
from razordeploy.config.backend_spec import BackendSpec, OpRule
from razordeploy.config.qconfig import QuantizeConfig, module_matches
from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError, nearest
from razordeploy.quantization.ends import ends_of
from razordeploy.quantization.fake_quants.table import build_fake_quant
from razordeploy.quantization.observers.table import build_observer
from razordeploy.quantization.op_kinds import DEPTHWISE, KINDS
from razordeploy.quantization.placement import OpSettings, Settings
from razordeploy.quantization.plan import ObserverSpec


def settings_for(spec: BackendSpec, config: QuantizeConfig) -> Settings:
    """Return the function that placement asks about each operation.

    Raises:
        RecipeError: the recipe names an unknown operation kind, observer or fake quant, or a grid that the backend
            has no kernel for.
    """
    _check_names(config, spec)

    def settings(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        path, ends = origin_path(node), ends_of(node)
        asked = config.at_ends(config.for_op(path, kind), ends)
        activation, weight = spec.activation.scheme(), spec.weight.scheme(rule.axis)
        if asked.a_scheme is not None:
            activation = asked.a_scheme.apply(activation)
        if asked.w_scheme is not None:
            weight = asked.w_scheme.apply(weight)
        _check_grids(spec, path or node.name, activation, weight)
        if config.reduced_range and weight.bits == 8:
            weight = replace(weight, bits=7)
        skip = config.skip_reason(path, kind, ends)
        if skip is None and not rule.enabled and not _asked_for(config, path, kind):
            skip = rule.reason or "off by default"
        return OpSettings(
            activation=activation,
            weight=weight,
            activation_observer=_observer(asked.a_observer, spec.activation.observer),
            weight_observer=_observer(asked.w_observer, spec.weight.observer),
            skip=skip,
        )

    return settings


def origin_path(node: fx.Node) -> str:
    """Module path that recipes name: the owner of the node's parameters when it has some, else of its code."""
    return module_path(node)


def check_patterns(config: QuantizeConfig, captured: CapturedModel) -> None:
    """Refuse a module pattern that names nothing in the model: it is a typo that would silently do nothing.

    Raises:
        RecipeError: says the pattern and the nearest module.
    """
    paths = {module_path(n) for n in captured.graph.nodes} - {""}
    overrides = [o.module for o in config.overrides if o.module is not None]
    for pattern in (*config.skip, *overrides):
        if not any(module_matches(pattern, path) for path in paths):
            raise RecipeError(f"'{pattern}' matches no module of the model", hint=nearest(pattern, paths))


def _asked_for(config: QuantizeConfig, path: str, kind: str) -> bool:
    """A recipe turns on a kind that is off by default by an override that names it."""
    return any(o.op == kind and o.matches(path, kind) for o in config.overrides)


def _check_names(config: QuantizeConfig, spec: BackendSpec) -> None:
    kinds = {*KINDS, *DEPTHWISE}
    for kind in (*config.skip_ops, *(o.op for o in config.overrides if o.op is not None)):
        if kind not in kinds:
            raise RecipeError(f"unknown operation kind '{kind}'", hint=nearest(kind, kinds))
    ends = [q for q in (config.input_layer, config.output_layer) if q is not None]
    for qconfig in (config.global_qconfig, *(o.qconfig for o in config.overrides), *ends):
        for observer in (qconfig.w_observer, qconfig.a_observer):
            if observer is not None:
                build_observer(observer)
        for fake_quant, rule in ((qconfig.w_fake_quant, spec.weight), (qconfig.a_fake_quant, spec.activation)):
            if fake_quant is not None:
                build_fake_quant(fake_quant, scheme=rule.scheme())


def _check_grids(spec: BackendSpec, where: str, activation: QScheme, weight: QScheme) -> None:
    for role, scheme in (("activations", activation), ("weights", weight)):
        if scheme.bits not in spec.bits:
            allowed = f"{spec.bits[0]}" if len(spec.bits) == 1 else f"{min(spec.bits)} to {max(spec.bits)}"
            raise RecipeError(
                f"'{where}': backend '{spec.name}' runs {allowed} bits, the recipe asks for {scheme.bits}-bit {role}",
                hint="--backend academic simulates any width",
            )
    if spec.weight_symmetric and not weight.symmetric:
        raise RecipeError(
            f"'{where}': backend '{spec.name}' has no kernel for asymmetric weights: they would silently run in float",
            hint="set w_qscheme=dict(is_symmetry=True)",
        )


def _observer(asked: dict[str, Any] | None, default: str) -> ObserverSpec:
    if asked is None:
        return ObserverSpec(type=default)
    options = {k: v for k, v in asked.items() if k != "type"}
    return ObserverSpec(type=str(asked["type"]), options=tuple(sorted(options.items())))
