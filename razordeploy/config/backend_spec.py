"""A backend's numbers: frozen dataclasses read from ``backend_configs/<name>.yaml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from razordeploy.config.scheme import QScheme
from razordeploy.errors import RecipeError, nearest

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TensorRule:
    """How the tensors of one role are put on a grid."""

    bits: int = 8
    """Bit width, 1 to 16."""
    signed: bool = False
    """True: qint8; False: quint8."""
    symmetric: bool = False
    """True: zero point fixed by the dtype."""
    symmetric_range: bool = False
    """True: drop the lowest signed value."""
    per_channel: bool = False
    """True: one scale per output channel (weights only)."""
    observer: str = "MinMaxObserver"
    """Range estimator used where the recipe names none."""

    def scheme(self, ch_axis: int | None = None) -> QScheme:
        """The grid, per channel of ``ch_axis`` where this rule asks for that."""
        return QScheme(
            bits=self.bits,
            signed=self.signed,
            symmetric=self.symmetric,
            symmetric_range=self.symmetric_range,
            ch_axis=ch_axis if self.per_channel else None,
        )


@dataclass(frozen=True, kw_only=True)
class OpRule:
    """What one kind of operation needs in order to run in int8."""

    inputs: tuple[int, ...] = ()
    """Argument positions whose activations are quantized."""
    weight: int | None = None
    """Argument position of the constant weight."""
    axis: int = 0
    """Axis of the weight that indexes output channels."""
    output: bool = False
    """True: the kernel needs a quantized output too."""
    join: bool = False
    """True: quantized only between int8 operations (element-wise, pooling); False: starts an int8 region."""
    sum_in_place: bool = False
    """True: an input that an int8 kernel writes for this operation alone stays as it is: the kernel adds to it."""
    only_in_place: bool = False
    """True: that is the only kernel there is, and the sum takes the other input's memory: float where it cannot."""
    adds: bool = True
    """False: the kernel cannot add another int8 value to its result."""
    constants: bool = True
    """False: stays float when one operand is a constant."""
    enabled: bool = True
    """False: stays float by default, for ``reason``."""
    reason: str = ""
    """Why it stays float when not enabled."""
    floor: float | None = None
    """Runs in int8 where it alone reads its input and that lies on an affine grid that begins here, a whole number of
    steps below 0."""
    min_sqnr_db: float | None = None
    """An attention product runs in int8 only where the attention's output keeps this SQNR on calibration data."""


@dataclass(frozen=True, kw_only=True)
class BackendSpec:
    """Everything about a backend that is data."""

    name: str
    summary: str
    """One line: what the engine is."""
    extra: str
    """Extra of the package that installs it."""
    requires: tuple[str, ...] = ()
    """Modules that must be importable."""
    programs: tuple[str, ...] = ()
    """Programs that must be on the PATH."""
    engine_requires: tuple[str, ...] = ()
    """Modules that only building and running the engine needs: without them the checked graph is written."""
    opset: int = 20
    """ONNX opset of the exported graph."""
    activation: TensorRule = field(default_factory=TensorRule)
    weight: TensorRule = field(default_factory=TensorRule)
    bits: tuple[int, ...] = (8,)
    """Bit widths that the engine has kernels for."""
    placement: Literal["int8", "measured"] = "int8"
    """Where the recipe does not say: quantize whatever can be, or leave in float what is faster there."""
    weight_symmetric: bool = True
    """True: kernels take weights of zero point 0 only."""
    ops: Mapping[str, OpRule] = field(default_factory=dict)
    """Operation kind -> rule; kinds that are not here stay float."""
    same_grid: tuple[str, ...] = ()
    """Kinds whose output lies on their input's grid."""
    requantize_same_grid: bool = False
    """True: write the pair again after such an operation."""
    pairs_at_readers: bool = False
    """True: a pair stands right before what reads it; the engine itself moves pairs through the operations above."""
    min_channels: int = 0
    """Layers with fewer input or output channels stay float, as far as the backend's quantizer says."""
    unify: tuple[str, ...] = ()
    """Kinds whose tensor inputs and output share one grid."""
    float_first: tuple[str, ...] = ()
    """Of the kinds that pass a grid on, those that run faster in float on what a float operation wrote."""
    unify_channels: bool = False
    """True: only along channels; where else parts are put together, a grid begins."""
    fused_activations: tuple[str, ...] = ()
    """Kinds that run inside the operation before them."""
    fused_behind_layers: tuple[str, ...] = ()
    """Kinds that run inside a convolution or linear layer before them, and in nothing else."""
    grid_clips: bool = False
    """True: only the grid behind a fused activation clips, so that values with others share no grid with them."""
    share_with_float: bool = False
    """True: float consumers read the quantized value too, because a kernel may have one output only."""
    bias: Literal["float", "int32"] = "float"
    """int32: biases are stored as integers of scale ``input scale * weight scale``."""
    float_reasons: Mapping[str, str] = field(default_factory=dict)
    """Operation kind -> why it stays float."""
    parity_steps: float = 1.0
    """Largest difference between simulation and engine, in output quantization steps."""
    usage: str = ""
    """Python that runs the engine with its runtime alone; ``backends/usage.py`` fills the names in braces."""


def load_backend_spec(path: Path) -> BackendSpec:
    """Read one YAML into a :class:`BackendSpec`.

    Raises:
        RecipeError: a key is unknown or a value has the wrong type; says file, key and the nearest known key.
    """
    import yaml

    raw = yaml.safe_load(path.read_text())
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} must be a mapping, got {type(raw).__name__}")
    for key in ("activation", "weight"):
        if key in raw:
            raw[key] = _build(TensorRule, raw[key], f"{path}: {key}")
    ops = {kind: _build(OpRule, rule or {}, f"{path}: ops.{kind}") for kind, rule in raw.get("ops", {}).items()}
    return _build(BackendSpec, {**raw, "ops": ops}, str(path))


def _build(cls: type[T], raw: Any, where: str) -> T:
    if not isinstance(raw, dict):
        raise RecipeError(f"{where} must be a mapping, got {type(raw).__name__}")
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in raw:
        if key not in known:
            raise RecipeError(f"{where}: unknown key '{key}'", hint=nearest(str(key), known))
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()})
