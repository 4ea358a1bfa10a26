"""mmrazor's ``MMArchitectureQuant`` and its quantizers, read as the sections that say the same here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from razordeploy.config.strict import Section
from razordeploy.errors import RecipeError, nearest

ALGORITHM = "MMArchitectureQuant"
# Quantizer -> the backend whose grids and places it stood for; None: the recipe or the command line names one.
QUANTIZERS: dict[str, str | None] = {
    "AcademicQuantizer": "academic",
    "NativeQuantizer": "torch_native",
    "OpenVINOQuantizer": "openvino",
    "TensorRTQuantizer": "tensorrt",
    "TorchDefaultQuantizer": None,
    "TorchNativeQuantizer": "torch_native",
}
_MODEL_KEYS = (
    *("type", "_scope_", "architecture", "quantizer", "float_checkpoint", "input_shapes", "data_preprocessor"),
    *("deploy_cfg", "forward_modes", "init_cfg"),
)
_QUANTIZER_KEYS = (
    *("type", "_scope_", "global_qconfig", "qconfig", "qconfig_mapping", "custom_qconfig", "input_layer"),
    *("output_layer", "fuse_config", "no_observer_modules", "tracer", "extra_redundant_fakequants"),
    *("prepare_custom_config", "is_qat", "backend"),
)
_FLOAT = (None, False, "float")


def is_quantized_architecture(model: object) -> bool:
    """Whether a recipe's ``model`` is mmrazor's wrapper of a model and its quantizer."""
    return isinstance(model, Mapping) and str(model.get("type")).rpartition(".")[2] == ALGORITHM


def own_sections(config: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The recipe with the sections ``quantize``, ``deploy`` and ``checkpoint`` that its quantizer stands for.

    What those sections say themselves stays. A tracer with its skipped methods, fused modules and fake quants that
    are redundant need not be named: the captured graph and the backend's rules tell.

    Raises:
        RecipeError: an unknown quantizer or key, or one that cannot be carried over.
    """
    if not is_quantized_architecture(config.get("model")):
        return dict(config)
    model = Section.of(config["model"], file, "model", _MODEL_KEYS).values
    if not isinstance(model.get("architecture"), Mapping):
        raise RecipeError(f"{file}: expected a dict for 'model.architecture', got {model.get('architecture')!r}")
    backend, own = quantizer_sections(model.get("quantizer") or {}, file, "model.quantizer")
    found = dict(config)
    found["quantize"] = {**own, **(config.get("quantize") or {})}
    deploy = dict(config.get("deploy") or {})
    if backend is not None:
        deploy.setdefault("backends", [backend])
    shape = model.get("input_shapes")
    if isinstance(shape, list | tuple) and len(shape) == 4 and not {"input_shape", "input_shapes"} & deploy.keys():
        deploy["input_shape"] = tuple(shape[1:])
    found["deploy"] = deploy
    if config.get("checkpoint") is None and model.get("float_checkpoint") is not None:
        found["checkpoint"] = model["float_checkpoint"]
    return found


def quantizer_sections(config: Mapping[str, Any], file: str, where: str) -> tuple[str | None, dict[str, Any]]:
    """The backend that a quantizer's config stands for, if it names one, and its ``quantize`` section.

    Args:
        config: ``type`` and the quantizer's own keys.
        file: what is read, for messages.
        where: place of ``config`` in it, for messages.

    Raises:
        RecipeError: an unknown quantizer or key, or one that cannot be carried over.
    """
    section = Section.of(config, file, where, _QUANTIZER_KEYS)
    name = str(section.values.get("type")).rpartition(".")[2]
    if name not in QUANTIZERS:
        raise RecipeError(f"{file}: unknown quantizer '{section.values.get('type')}'", hint=nearest(name, QUANTIZERS))
    if section.values.get("no_observer_modules"):
        raise RecipeError(
            f"{file}: '{where}.no_observer_modules' names classes, and module names are wanted here",
            hint="quantize=dict(skip=['backbone.layer1', ...]) leaves modules in float",
        )
    return section.string("backend") or QUANTIZERS[name], _quantize(section)


def _quantize(quantizer: Section) -> dict[str, Any]:
    """The ``quantize`` section of a quantizer's own keys."""
    values = quantizer.values
    mapping: Mapping[str, Any] = values.get("qconfig_mapping") or {}
    if not isinstance(mapping, Mapping) or not set(mapping) <= {"_global_", "object_type", "module_name"}:
        raise quantizer.error("qconfig_mapping", "a dict of '_global_', 'object_type' and 'module_name'")
    found: dict[str, Any] = {}
    whole = values.get("global_qconfig") or values.get("qconfig") or mapping.get("_global_")
    if whole is not None:
        found["global_qconfig"] = whole
    kinds = _pairs(quantizer, mapping.get("object_type"))
    entries = [("op", op, q) for name, q in kinds for op in _KINDS.get(name.rpartition(".")[2], (name,))]
    entries += [("module", *pair) for pair in _pairs(quantizer, mapping.get("module_name"))]
    custom = values.get("custom_qconfig")
    entries += [("module", *pair) for pair in _pairs(quantizer, custom)]
    found["overrides"] = [{key: name, "qconfig": q} for key, name, q in entries if not _is_float(q)]
    found["skip"] = [name for key, name, q in entries if key == "module" and _is_float(q)]
    found["skip_ops"] = [name for key, name, q in entries if key == "op" and _is_float(q)]
    for end in ("input_layer", "output_layer"):
        if end in values:
            found[end] = "float" if _is_float(values[end]) else values[end]
    return found


def _is_float(qconfig: object) -> bool:
    return any(qconfig is value or qconfig == value for value in _FLOAT)


def _pairs(quantizer: Section, value: object) -> list[tuple[str, Any]]:
    """``{name: qconfig}`` or ``[(name, qconfig), ...]`` as a list."""
    if value is None:
        return []
    pairs = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str) for p in pairs
    ):
        raise RecipeError(
            f"{quantizer.file}: expected {{name: qconfig}} or [(name, qconfig), ...] in '{quantizer.where}', "
            f"got {value!r}"
        )
    return [(name, qconfig) for name, qconfig in pairs]


# What object_type names, as the kinds of operation that overrides speak of.
_KINDS = {
    "Conv1d": ("conv1d", "depthwise_conv1d"),
    "Conv2d": ("conv2d", "depthwise_conv2d"),
    "Conv3d": ("conv3d", "depthwise_conv3d"),
    "ConvTranspose2d": ("conv_transpose2d",),
    "Linear": ("linear",),
}
