"""mmrazor's configs as recipes of ours: what stays, what is said in another way, what means something else."""

from __future__ import annotations

import ast
import copy
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from razordeploy.config.mm_config import read_config
from razordeploy.config.mm_quant import is_quantized_architecture, own_sections
from razordeploy.config.recipe import MM_KEYS, OWN_KEYS
from razordeploy.integrations.changes import WIDTH, changes, literal

_QAT_LOOPS = ("QATEpochBasedLoop", "LSQEpochBasedLoop")
_QUANT_KEYS = ("model_wrapper_cfg", "custom_hooks", "default_hooks")


@dataclass
class Migration:
    """A recipe in parts."""

    bases: list[str]
    sections: dict[str, Any] = field(default_factory=dict)
    """Key -> value, in the order they are printed."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(key, what its line means here); a key that is not printed: what is left out and why."""

    def text(self, name: str) -> str:
        """The recipe as a Python file."""
        lines = [f'"""Migrated from {name}."""', ""]
        if self.bases:
            lines += [f"_base_ = {literal(self.bases, 0)}", ""]
        for key, note in self.notes:
            if key not in self.sections:
                lines += _comment(f"{key}: {note}")
        if any(key not in self.sections for key, _ in self.notes):
            lines.append("")
        for key, value in self.sections.items():
            for owner, note in self.notes:
                if owner == key:
                    lines += _comment(note)
            lines.append(f"{key} = {literal(value, 0)}")
        return "\n".join(lines) + "\n"


def migrate(path: Path) -> str:
    """The text of a recipe that does what mmrazor did with the config ``path``, comments on what it does otherwise.

    The recipe builds on the same bases of mmcls, mmpretrain or mmdet, and holds what the config adds to them.

    Raises:
        RecipeError: the config cannot be read.
        MissingDependency: it builds on a package that is not installed.
    """
    config, _ = read_config(path, {})
    bases = _package_bases(path.resolve())
    found = Migration(bases=bases)
    base = _read_bases(bases)
    if is_quantized_architecture(config.get("model")):
        _quantized(config, found, str(path))
    else:
        found.sections = {k: v for k, v in config.items() if k in (*OWN_KEYS, *MM_KEYS)}
    _local_files(found)
    found.notes = list(dict.fromkeys([*found.notes, *changes(config)]))
    found.sections = {
        key: _replacing(value, key in base) for key, value in found.sections.items() if base.get(key) != value
    }
    return found.text(path.name)


def _quantized(config: dict[str, Any], found: Migration, file: str) -> None:
    """Sections of a config whose model is mmrazor's wrapper of a model and its quantizer."""
    model, ours = config["model"], own_sections(config, file)
    architecture = copy.deepcopy(dict(model["architecture"]))
    if model.get("data_preprocessor"):
        architecture.setdefault("data_preprocessor", model["data_preprocessor"])
    kept = {k: v for k, v in config.items() if k in MM_KEYS and k not in _QUANT_KEYS}
    kept |= {k: v for k, v in config.items() if k.endswith("_dataloader")}
    loop: Mapping[str, Any] = config.get("train_cfg") or {}
    kind = str(loop.get("type", "")).rpartition(".")[2]
    sections: dict[str, Any] = {"model": architecture}
    if ours.get("checkpoint"):
        sections["checkpoint"] = ours["checkpoint"]
    calibration = _calibration(config.get("test_cfg") or {}, found)
    if calibration:
        sections["calibration"] = calibration
    quantize = {key: value for key, value in (ours.get("quantize") or {}).items() if value}
    sections["quantize"] = quantize
    sections["deploy"] = {**_deploy(model.get("deploy_cfg") or config.get("deploy_cfg")), **ours["deploy"]}
    if kind in _QAT_LOOPS:
        sections["qat"] = {
            "epochs": loop.get("max_epochs", 1),
            **({"freeze_bn_begin": loop["freeze_bn_begin"]} if "freeze_bn_begin" in loop else {}),
            **_observers(loop, kind),
        }
    for key in ("test_cfg", "val_cfg", "train_cfg"):
        if str((kept.get(key) or {}).get("type", "")).rpartition(".")[2] in (*_QAT_LOOPS, "PTQLoop", "QATValLoop"):
            kept.pop(key)
    found.sections = {**kept, **sections}
    tracer = (model.get("quantizer") or {}).get("tracer") or {}
    if tracer.get("skipped_methods"):
        found.notes.append(
            ("tracer.skipped_methods", "not needed: torch.export captures the model without a list of methods")
        )
    if model.get("deploy_cfg"):
        found.notes.append(
            ("deploy_cfg", "not needed: opset, names and placement are the backend's; its input shape is in 'deploy'")
        )
    found.notes += [
        (key, "not needed: the loops of razordeploy see to it") for key in _QUANT_KEYS[:2] if config.get(key)
    ]


def _observers(loop: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """From which epoch ranges stay: those of learned scales from the first."""
    if kind.startswith("LSQ"):
        return {"disable_observer_begin": 1}
    return {key: loop[key] for key in ("disable_observer_begin",) if key in loop}


def _calibration(loop: Mapping[str, Any], found: Migration) -> dict[str, Any]:
    steps = loop.get("calibrate_steps")
    if not isinstance(steps, int):
        return {}
    batch = (loop.get("calibrate_dataloader") or {}).get("batch_size", 32)
    found.notes.append(
        (
            "calibration",
            f"mmrazor calibrated on {steps} batches of the validation images, which it also evaluated on; here it is "
            "training images, read as the test images are. calibrate_dataloader = val_dataloader is the old way.",
        )
    )
    return {"num_samples": steps * int(batch), "batch_size": int(batch)}


def _deploy(deploy_cfg: Any) -> dict[str, Any]:
    """The input shape of an mmdeploy section."""
    inputs = ((deploy_cfg or {}).get("backend_config") or {}).get("model_inputs") or [{}]
    shapes = inputs[0].get("opt_shapes") or inputs[0].get("input_shapes") or {}
    shape: Any = next(iter(shapes.values()), None)
    if isinstance(shape, Mapping):
        shape = shape.get("opt_shape")
    return {"input_shape": tuple(shape[1:])} if isinstance(shape, list | tuple) and len(shape) == 4 else {}


def _local_files(found: Migration) -> None:
    """Addresses become files: nothing is downloaded."""
    for key, value in found.sections.items():
        for address in sorted(set(_addresses(value))):
            found.sections[key] = _replaced(found.sections[key], address, f"checkpoints/{address.rpartition('/')[2]}")
            found.notes.append((key, f"nothing is downloaded: get {address} first"))


def _addresses(value: Any) -> Iterator[str]:
    if (
        isinstance(value, str)
        and value.startswith(("http://", "https://"))
        and value.endswith((".pth", ".pt", ".yaml"))
    ):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _addresses(inner)


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _replaced(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_replaced(inner, old, new) for inner in value)
    return new if value == old else value


def _replacing(value: Any, in_base: bool) -> Any:
    return {"_delete_": True, **value} if in_base and isinstance(value, Mapping) else value


def _package_bases(file: Path) -> list[str]:
    """Bases in installed packages, of the config and of the files that it builds on."""
    found: list[str] = []
    if file.suffix != ".py" or not file.is_file():
        return found
    for node in ast.walk(ast.parse(file.read_text())):
        if not (isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "_base_" for t in node.targets)):
            continue
        value = ast.literal_eval(node.value)
        for base in [value] if isinstance(value, str) else value:
            if "::" not in base:
                found += _package_bases(file.parent / base)
            elif not base.startswith(("mmrazor::", "razordeploy::")):
                found.append(base)
    return list(dict.fromkeys(found))


def _read_bases(bases: list[str]) -> dict[str, Any]:
    if not bases:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bases.py"
        file.write_text(f"_base_ = {bases!r}\n")
        return read_config(file, {})[0]


def _comment(text: str) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)]
