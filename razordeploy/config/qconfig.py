"""The ``quantize`` section of a recipe: what it changes in a backend's own choices, and where."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

from razordeploy.config.mixed import MixedPrecisionConfig
from razordeploy.config.scheme import QScheme
from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError

_DTYPES = {"qint8": True, "quint8": False}
_QSCHEME_KEYS = ("qdtype", "bit", "is_symmetry", "is_symmetric_range", "averaging_constant", "per_channel")
_QCONFIG_KEYS = ("w_observer", "a_observer", "w_fake_quant", "a_fake_quant", "w_qscheme", "a_qscheme")

_QUANTIZE_KEYS = (
    *("global_qconfig", "overrides", "input_layer", "output_layer", "skip", "skip_ops", "mixed_precision"),
    *("algorithms", "reduced_range", "placement"),
)

_PLACEMENTS = ("int8", "measured")

_Parts = TypeVar("_Parts", "SchemeOverride", "QConfig")


@dataclass(frozen=True, kw_only=True)
class SchemeOverride:
    """The parts of a backend's grid that a recipe replaces; None keeps the backend's own."""

    bits: int | None = None
    """Bit width, 1 to 16."""
    signed: bool | None = None
    """True: qint8; False: quint8."""
    symmetric: bool | None = None
    symmetric_range: bool | None = None
    """True: drop the lowest signed value."""
    per_channel: bool | None = None
    """True: one scale a channel; False: one for the tensor."""

    def __post_init__(self) -> None:
        if self.symmetric_range and self.signed is False:
            raise RecipeError("is_symmetric_range drops the lowest signed value: it needs qdtype='qint8'")

    def apply(self, base: QScheme) -> QScheme:
        """The backend's grid ``base`` with the replaced parts.

        Per-channel keeps the backend's axis, or takes axis 0 where the backend has one scale. Turning a signed grid
        unsigned drops the backend's symmetric range, which has no meaning there.
        """
        signed = base.signed if self.signed is None else self.signed
        inherited_range = base.symmetric_range and signed
        ch_axis = base.ch_axis
        if self.per_channel is not None:
            ch_axis = (0 if base.ch_axis is None else base.ch_axis) if self.per_channel else None
        return replace(
            base,
            bits=base.bits if self.bits is None else self.bits,
            signed=signed,
            symmetric=base.symmetric if self.symmetric is None else self.symmetric,
            symmetric_range=inherited_range if self.symmetric_range is None else self.symmetric_range,
            ch_axis=ch_axis,
        )


@dataclass(frozen=True, kw_only=True)
class QConfig:
    """Grids, observers and fake quants of weights (``w_``) and activations (``a_``); None is the backend's default."""

    w_scheme: SchemeOverride | None = None
    a_scheme: SchemeOverride | None = None
    w_observer: dict[str, Any] | None = None
    """``type`` (a name of the table of observers, without scope) and its arguments; so for the next three."""
    a_observer: dict[str, Any] | None = None
    w_fake_quant: dict[str, Any] | None = None
    a_fake_quant: dict[str, Any] | None = None

    def updated(self, top: QConfig) -> QConfig:
        """This one with every part that ``top`` gives; grids are merged part by part too."""
        merged = _merged(self, top)
        grids = {
            name: _merged(low, high)
            for name in ("w_scheme", "a_scheme")
            if (low := getattr(self, name)) is not None and (high := getattr(top, name)) is not None
        }
        return replace(merged, **grids)


@dataclass(frozen=True, kw_only=True)
class QConfigOverride:
    """A ``QConfig`` for some modules, some kinds of operation, or both."""

    module: str | None
    """Module pattern as in ``module_matches``; None means every module."""
    op: str | None
    """Operation kind such as ``conv2d``; None means every kind."""
    qconfig: QConfig

    def matches(self, module: str, op: str) -> bool:
        """Tell whether the override is for operation kind ``op`` of the module at path ``module``."""
        return self.op in (None, op) and (self.module is None or module_matches(self.module, module))


@dataclass(frozen=True, kw_only=True)
class QuantizeConfig:
    """What a recipe asks of quantization, on top of a backend's own choices."""

    global_qconfig: QConfig = field(default_factory=QConfig)
    overrides: tuple[QConfigOverride, ...] = ()
    """Tried in order; the last one that matches wins, part by part."""
    skip: tuple[str, ...] = ()
    """Patterns of modules that stay float."""
    skip_ops: tuple[str, ...] = ()
    """Kinds of operation that stay float."""
    input_layer: QConfig | None = None
    """Of layers that read the model's input, on top of the global one and the overrides; None: nothing special."""
    output_layer: QConfig | None = None
    """Of layers that write the model's output."""
    float_ends: tuple[str, ...] = ()
    """``input``, ``output``, both or none: whose layers stay float."""
    mixed_precision: MixedPrecisionConfig | None = None
    """How weights get widths of their own; None: those of the other keys."""
    algorithms: tuple[dict[str, Any], ...] = ()
    """Run in order on each backend's draft after calibration: ``type`` (a name of the table) and options."""
    reduced_range: bool = False
    """True: 8-bit weights use half of their range, so that pairs of products fit into the 16 bits in which processors
    without VNNI add them up."""
    placement: str | None = None
    """``int8``: whatever can be is quantized; ``measured``: what makes this machine's engine slower goes back to float;
    None: the backend's own choice."""

    def for_op(self, module: str, op: str) -> QConfig:
        """What the recipe asks for operation kind ``op`` in the module at path ``module``."""
        found = self.global_qconfig
        for override in self.overrides:
            if override.matches(module, op):
                found = found.updated(override.qconfig)
        return found

    def at_ends(self, found: QConfig, ends: Sequence[str]) -> QConfig:
        """``found`` with what is asked of layers at ``ends``: ``input``, ``output`` or both."""
        for end, wanted in (("input", self.input_layer), ("output", self.output_layer)):
            if end in ends and wanted is not None:
                found = found.updated(wanted)
        return found

    def skip_reason(self, module: str, op: str, ends: Sequence[str] = ()) -> str | None:
        """Why the recipe keeps operation kind ``op`` in the module at path ``module`` in float; None: it does not."""
        end = next((end for end in ends if end in self.float_ends), None)
        if end is not None:
            return f"the recipe's {end}_layer is 'float'"
        if op in self.skip_ops:
            return f"the recipe's skip_ops names '{op}'"
        pattern = next((pattern for pattern in self.skip if module_matches(pattern, module)), None)
        return None if pattern is None else f"the recipe's skip names '{pattern}'"

    @classmethod
    def parse(cls, value: object, file: str) -> QuantizeConfig:
        """Read the ``quantize`` section of the recipe ``file``."""
        section = Section.of(value, file, "quantize", _QUANTIZE_KEYS)
        entries = section.values.get("overrides") or ()
        if not isinstance(entries, list | tuple):
            raise section.error("overrides", "a list of dict(module=..., op=..., qconfig=...)")
        return cls(
            global_qconfig=_qconfig(section.values.get("global_qconfig"), file, "quantize.global_qconfig"),
            overrides=tuple(_override(entry, file, f"quantize.overrides[{i}]") for i, entry in enumerate(entries)),
            skip=section.patterns("skip"),
            skip_ops=section.strings("skip_ops") or (),
            input_layer=_end(section, "input_layer"),
            output_layer=_end(section, "output_layer"),
            float_ends=tuple(end for end in ("input", "output") if section.values.get(f"{end}_layer") == "float"),
            mixed_precision=MixedPrecisionConfig.parse(section.values.get("mixed_precision"), file),
            algorithms=_algorithms(section),
            reduced_range=bool(section.boolean("reduced_range")),
            placement=_placement(section),
        )


def module_matches(pattern: str, path: str) -> bool:
    """Tell whether ``pattern`` names the module at ``path`` or one that contains it.

    ``backbone.layer1`` names everything in it, ``*.conv1`` is a glob whose ``*`` also spans dots, and ``re:`` starts a
    regular expression that has to match a whole path.
    """
    parts = path.split(".")
    paths = [".".join(parts[: i + 1]) for i in range(len(parts))]
    if pattern.startswith("re:"):
        return any(re.fullmatch(pattern[3:], candidate) for candidate in paths)
    return any(fnmatch.fnmatchcase(candidate, pattern) for candidate in paths)


def _end(section: Section, key: str) -> QConfig | None:
    value = section.values.get(key)
    if isinstance(value, str):
        if value != "float":
            raise section.error(key, "'float' or a dict such as dict(w_qscheme=dict(bit=8))")
        return None
    return None if value is None else _qconfig(value, section.file, f"{section.where}.{key}")


def _algorithms(section: Section) -> tuple[dict[str, Any], ...]:
    entries = section.values.get("algorithms") or ()
    if not isinstance(entries, list | tuple):
        raise section.error("algorithms", "a list such as [dict(type='SmoothQuant', alpha=0.5), 'BiasCorrection']")
    found = ({"type": entry} if isinstance(entry, str) else entry for entry in entries)
    made = tuple(dict(e) if isinstance(e, Mapping) else {} for e in found)
    if not all(isinstance(e.get("type"), str) and e["type"] for e in made):
        raise section.error("algorithms", "a list of names, or of dict(type='NAME', ...)")
    return made


def _placement(section: Section) -> str | None:
    value = section.string("placement")
    if value is not None and value not in _PLACEMENTS:
        raise section.error("placement", "'int8' or 'measured'")
    return value


def _override(value: object, file: str, where: str) -> QConfigOverride:
    section = Section.of(value, file, where, ("module", "op", "qconfig"))
    module, op = section.string("module"), section.string("op")
    section.patterns("module")
    if module is None and op is None:
        raise RecipeError(f"{file}: '{where}' names no module and no op", hint="give module='...' or op='...' or both")
    if "qconfig" not in section.values:
        raise RecipeError(f"{file}: '{where}' has no qconfig", hint="to leave modules in float, use quantize.skip")
    return QConfigOverride(module=module, op=op, qconfig=_qconfig(section.values["qconfig"], file, f"{where}.qconfig"))


def _qconfig(value: object, file: str, where: str) -> QConfig:
    if value is None:
        return QConfig()
    section = Section.of(value, file, where, _QCONFIG_KEYS)
    parts = {key: _component(section, key) for key in _QCONFIG_KEYS[:4]}
    w_scheme, w_observer = _scheme(section, "w_qscheme", parts["w_observer"])
    a_scheme, a_observer = _scheme(section, "a_qscheme", parts["a_observer"])
    if w_observer is not None and (w_scheme is None or w_scheme.per_channel is None):
        # mmrazor's rule: its recipes choose per-channel weights by the observer's name alone.
        w_scheme = replace(w_scheme or SchemeOverride(), per_channel="PerChannel" in str(w_observer["type"]))
    return QConfig(
        **{**parts, "w_observer": w_observer, "a_observer": a_observer}, w_scheme=w_scheme, a_scheme=a_scheme
    )


def _component(section: Section, key: str) -> dict[str, Any] | None:
    value = section.values.get(key)
    if value is None:
        return None
    given = {"type": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping) or not isinstance(given.get("type"), str) or not given["type"]:
        raise section.error(key, "dict(type='NAME', ...)")
    return {**given, "type": given["type"].removeprefix("mmrazor.")}


def _scheme(
    qconfig: Section, key: str, observer: dict[str, Any] | None
) -> tuple[SchemeOverride | None, dict[str, Any] | None]:
    """The grid under ``key``, and ``observer`` with the arguments that mmrazor writes into the grid."""
    if qconfig.values.get(key) is None:
        return None, observer
    section = Section.of(qconfig.values[key], qconfig.file, f"{qconfig.where}.{key}", _QSCHEME_KEYS)
    dtype = section.string("qdtype")
    if dtype is not None and dtype not in _DTYPES:
        raise section.error("qdtype", "'qint8' or 'quint8'")
    averaging = section.number("averaging_constant", low=0.0)
    if averaging is not None:
        if observer is None:
            raise RecipeError(
                f"{section.file}: '{section.where}.averaging_constant' is an argument of the observer",
                hint=f"name one: {key[0]}_observer=dict(type='MovingAverageMinMaxObserver')",
            )
        observer = {"averaging_constant": averaging, **observer}
    parts: dict[str, Any] = {
        "bits": section.integer("bit", low=1, high=16),
        "signed": None if dtype is None else _DTYPES[dtype],
        "symmetric": section.boolean("is_symmetry"),
        "symmetric_range": section.boolean("is_symmetric_range"),
        "per_channel": section.boolean("per_channel"),
    }
    try:
        return SchemeOverride(**parts), observer
    except RecipeError as error:
        raise RecipeError(f"{section.file}: '{section.where}': {error}") from error


def _merged(base: _Parts, top: _Parts) -> _Parts:
    """``base`` with every part that ``top`` gives."""
    return replace(base, **{f.name: v for f in fields(top) if (v := getattr(top, f.name)) is not None})
