"""A fixed subnet on disk: its file, and where it is sliced its weights and an ONNX file, as one artifact."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from razordeploy.artifact import Artifact, TensorSpec, staged_directory, write_artifact
from razordeploy.capture.export import capture
from razordeploy.capture.graph import tensor_specs
from razordeploy.config.sections import DeployConfig
from razordeploy.environment import versions
from razordeploy.errors import CheckFailed, UsageError
from razordeploy.subnet.estimate import ResourceEstimator
from razordeploy.subnet.files import write_mapping

CHECKPOINT, WEIGHTS, ONNX = "model.pth", "model.safetensors", "model.onnx"
OPSET = 18
_TOLERANCE = 1e-5
"""Largest difference of the outputs of a model that was read again, relative to the largest output."""
_INLINE_BYTES = 1_000_000_000
"""Larger weights go into a file of their own beside the ONNX file, which may not pass 2 GB."""


@dataclass(frozen=True, kw_only=True)
class SubnetJob:
    """A subnet that is to be written."""

    subnet: Mapping[str, Any]
    """Content of the subnet file."""
    module: nn.Module | None = None
    """The static model; None: the subnet is only named, not sliced."""
    full: nn.Module | None = None
    """What it is a part of, for the figures; None: not known."""
    example_inputs: tuple[Any, ...] = ()
    deploy: DeployConfig = field(default_factory=DeployConfig)
    parent: str | None = None
    """Identity of the weights that it was made from."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where it came from: recipe, overrides, checkpoint."""
    reread: Callable[[Path], nn.Module] | None = None
    """``folder -> the model that its files give``; what it computes is held against ``module``."""


def write_subnet(target: Path, job: SubnetJob) -> Artifact:
    """Write an artifact of kind ``sliced``, or ``subnet`` where there is no static model.

    Its files: ``fix_subnet.yaml`` and ``.json``; for a static model the ``state_dict`` as ``model.pth`` and
    ``model.safetensors``, and ``model.onnx``.

    Raises:
        CheckFailed: the files give a model that computes something else; nothing is written then.
        ModelError: the model has no ONNX form.
        StorageError: it cannot be written.
    """
    with staged_directory(target) as staged:
        files = {"subnet": "fix_subnet.yaml", "subnet_json": "fix_subnet.json"}
        for name in files.values():
            write_mapping(staged / name, job.subnet)
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        metrics: dict[str, Any] = {}
        if job.module is not None:
            files |= _weights(job.module, staged)
            names, inputs, outputs = _onnx(job, staged)
            files |= names
            metrics = _resources(job)
            if job.reread is not None:
                _check(job.module, job.reread(staged), job.example_inputs)
        write_artifact(
            staged,
            kind="sliced" if job.module is not None else "subnet",
            stage="export",
            files=files,
            inputs=inputs,
            outputs=outputs,
            parent=job.parent,
            params={"deploy_names": [job.deploy.input_names, job.deploy.output_names], **job.origin},
            metrics=metrics,
            versions=versions(("torch", "onnx", "onnxscript")),
        )
    return Artifact.load(target)


def _weights(module: nn.Module, folder: Path) -> dict[str, str]:
    from safetensors.torch import save_file

    state = {key: value.detach().cpu() for key, value in module.state_dict().items()}
    torch.save({"state_dict": state}, folder / CHECKPOINT)
    # safetensors takes no views and no tensor under two names.
    save_file({key: value.clone().contiguous() for key, value in state.items()}, folder / WEIGHTS)
    return {"checkpoint": CHECKPOINT, "weights": WEIGHTS}


def _onnx(job: SubnetJob, folder: Path) -> tuple[dict[str, str], list[TensorSpec], list[TensorSpec]]:
    import onnx_ir as ir

    from razordeploy.backends.onnx_passes.export import export_marked
    from razordeploy.backends.onnx_passes.qdq import float_model

    assert job.module is not None
    captured = capture(job.module, job.example_inputs, dynamic_batch=job.deploy.dynamic_batch)
    names = {"input_names": job.deploy.input_names, "output_names": job.deploy.output_names}
    model = float_model(export_marked(captured, [], opset=OPSET, **names))
    size = sum(p.numel() * p.element_size() for p in job.module.parameters())
    files = {"onnx": ONNX}
    if size > _INLINE_BYTES:
        files["onnx_data"] = "model.bin"
        ir.save(model, folder / ONNX, external_data="model.bin")
    else:
        ir.save(model, folder / ONNX)
    return files, *tensor_specs(captured, job.deploy.input_names, job.deploy.output_names)


def _resources(job: SubnetJob) -> dict[str, Any]:
    """What the subnet costs for one sample of the example inputs, and what the whole model does."""
    pairs = (("subnet", job.module), ("full", job.full))
    return {name: resources(module, job.example_inputs) for name, module in pairs if module is not None}


def resources(module: nn.Module, example_inputs: tuple[Any, ...]) -> dict[str, int]:
    """``macs`` of one sample and ``params`` of a static model.

    Raises:
        ModelError: it cannot be captured.
    """
    one = tuple(x[:1] if isinstance(x, torch.Tensor) and x.dim() else x for x in example_inputs)
    estimator = ResourceEstimator(units=dict.fromkeys(("macs", "params", "flops"), ""), example_inputs=one)
    counted = estimator.estimate(module)
    return {key: int(counted[key]) for key in ("macs", "params")}


def _check(module: nn.Module, again: nn.Module, inputs: tuple[Any, ...]) -> None:
    modes = [(part, part.training) for part in (*module.modules(), *again.modules())]
    module.eval()
    again.eval()
    try:
        with torch.no_grad():
            one, other = (torch.utils._pytree.tree_leaves(m(*inputs)) for m in (module, again))
    finally:
        for part, mode in modes:
            part.training = mode
    for a, b in zip(one, other, strict=True):
        gap = (a - b).abs().max().item() if a.shape == b.shape else float("inf")
        if not gap <= _TOLERANCE * max(1.0, a.abs().max().item()):
            raise CheckFailed(
                f"the sliced model differs from what its files give by {gap:.2e}, so nothing was written",
                hint="this model keeps something about its channels outside of its weights",
            )


def as_recipe(path: str | os.PathLike[str]) -> tuple[str, dict[str, str]]:
    """The recipe of the model in an artifact's folder, and the overrides with which that recipe is this model.

    Raises:
        UsageError: it is not there, damaged, or holds no model with a recipe.
    """
    artifact = Artifact.load(path)
    artifact.verify()
    made_of = artifact.params.get("recipe")
    if made_of is None or artifact.kind not in ("float", "sliced", "subnet", "supernet"):
        raise UsageError(
            f"{artifact.path} is a '{artifact.kind}' artifact of stage '{artifact.stage}', expected a model's",
            hint="give a recipe, or the folder that 'razordeploy export' wrote",
        )
    overrides: dict[str, str] = {key: str(value) for key, value in artifact.params.get("overrides", {}).items()}
    weights = artifact.file("checkpoint").resolve() if "checkpoint" in artifact.files else None
    if "subnet" not in artifact.files:
        return str(made_of), {**overrides, **({} if weights is None else {"checkpoint": repr(str(weights))})}
    weights = weights or artifact.params.get("checkpoint")
    for key in [key for key in overrides if key.partition(".")[0] in ("prune", "subnet", "checkpoint")]:
        del overrides[key]
    section = {"file": str(artifact.file("subnet").resolve()), "checkpoint": None if weights is None else str(weights)}
    return str(made_of), {**overrides, "prune": "None", "subnet": repr(section), "checkpoint": "None"}


def load_model(path: str | os.PathLike[str]) -> nn.Module:
    """The model in an artifact's folder, plain, in eval mode and with its weights.

    Args:
        path: a folder that ``razordeploy export`` wrote.

    Raises:
        RazorDeployError: it is damaged, or its recipe is not there any more.
    """
    from razordeploy.assemble import assemble
    from razordeploy.config.recipe import load_recipe

    recipe, overrides = as_recipe(path)
    artifact = Artifact.load(path)
    return assemble(load_recipe(recipe, overrides), inputs=lambda built: _inputs_of(artifact, built)).module


def example_inputs_of(path: str | os.PathLike[str]) -> tuple[torch.Tensor, ...]:
    """Random inputs, a batch of two, of the shapes that an artifact's model takes."""
    return _inputs_of(Artifact.load(path), None)


def _inputs_of(artifact: Artifact, built: Any) -> tuple[torch.Tensor, ...]:
    if built is not None and built.example_inputs is not None:
        return tuple(built.example_inputs)
    generator = torch.Generator().manual_seed(0)
    shapes = [tuple(2 if size is None else size for size in spec.shape) for spec in artifact.inputs]
    if not shapes and built is not None:
        shapes = [(2, *shape) for shape in built.input_shapes or ()]
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def state_digest(module: nn.Module) -> str:
    """Hash of the names and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
