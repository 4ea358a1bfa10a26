"""What algorithms and training made of a float model's constants, kept beside the engine: the simulation needs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import fx

from razordeploy import lazy
from razordeploy.capture.graph import CapturedModel, attribute
from razordeploy.errors import UsageError
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.plan import QuantPlan

FILE = "changes.safetensors"


def write_changes(captured: CapturedModel, draft: Draft, folder: Path) -> dict[str, str]:
    """Write the constants of ``draft`` that the float model has not; returns role -> file, empty where there are none.

    Nothing is written either where an algorithm changed more than constants and biases.
    """
    before, after = _constants(captured), _constants(draft.captured)
    added = {name for _, name in draft.inserted}
    changed = {
        name: value.detach().clone().contiguous()
        for name, value in after.items()
        if name in added or name not in before or not torch.equal(value, before[name])
    }
    if not changed or not _same_operations(captured.graph, draft.captured.graph):
        return {}
    safetensors: Any = lazy.require("safetensors.torch", extra="openvino")
    safetensors.save_file(changed, folder / FILE, metadata={"inserted": json.dumps(draft.inserted)})
    return {"changes": FILE}


def with_changes(captured: CapturedModel, path: Path) -> CapturedModel:
    """The float model with the constants that ``write_changes`` kept.

    Raises:
        UsageError: the file is no such one, or of another model.
    """
    safetensors: Any = lazy.require("safetensors", extra="openvino")
    no_plan = QuantPlan(backend="", points=(), ops=())
    draft = Draft(captured=captured, plan=no_plan, params={}, replan=lambda *_: no_plan).copied()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            for reader, name in json.loads((file.metadata() or {}).get("inserted", "[]")):
                draft.bias_of(draft.node(reader)).name = name
            for name in file.keys():  # noqa: SIM118  the file is no mapping
                draft.set_constant(draft.node(name), file.get_tensor(name), equivalent=True)
    except (OSError, ValueError, StopIteration, safetensors.SafetensorError) as error:
        raise UsageError(
            f"{path} does not belong to this model: {type(error).__name__}: {error}", hint="make the engine again"
        ) from error
    draft.refresh()
    return draft.captured


def _constants(captured: CapturedModel) -> dict[str, torch.Tensor]:
    found = {
        n.name: attribute(captured.graph_module, str(n.target)) for n in captured.graph.nodes if n.op == "get_attr"
    }
    return {name: value for name, value in found.items() if isinstance(value, torch.Tensor)}


def _same_operations(one: fx.Graph, other: fx.Graph) -> bool:
    return [(n.name, n.target) for n in one.nodes if n.op != "get_attr"] == [
        (n.name, n.target) for n in other.nodes if n.op != "get_attr"
    ]
