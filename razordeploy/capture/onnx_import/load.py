"""From an ONNX file to a module that has been checked, and inputs to capture it with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from razordeploy.artifact import TensorSpec
from razordeploy.capture.onnx_import.check import check_import
from razordeploy.capture.onnx_import.folding import fold
from razordeploy.capture.onnx_import.graph import load_graph
from razordeploy.capture.onnx_import.module import OnnxModule
from razordeploy.capture.onnx_import.recompose import recompose
from razordeploy.capture.onnx_import.reference import Reference
from razordeploy.errors import ModelError


def import_onnx(
    path: str | os.PathLike[str],
    *,
    inputs: Sequence[torch.Tensor] | None = None,
    shapes: Sequence[Sequence[int]] | None = None,
) -> tuple[OnnxModule, tuple[torch.Tensor, ...]]:
    """Read the file as a torch module and hold it against ONNX Runtime, unoptimised, on random inputs.

    Args:
        path: the ``.onnx`` file; weights may lie beside it.
        inputs: example inputs; None makes random ones of the sizes that the file says, two samples where the batch
            is open.
        shapes: shape of every input without the batch, for a file that leaves more than the batch open.

    Returns:
        The module and example inputs.

    Raises:
        ModelError: the file cannot be read, holds what cannot be imported, leaves sizes open that nobody gives, or
            the import disagrees with ONNX Runtime.
        MissingDependency: the ONNX packages or ONNX Runtime are not installed.
    """
    graph = fold(load_graph(path))
    reference = Reference(graph.path)
    module = OnnxModule(recompose(graph))
    if inputs is not None:
        examples = tuple(inputs)
        check_import(module, examples, reference)
        return module, examples
    examples = sample_inputs(graph.path, graph.inputs, shapes)
    try:
        check_import(module, examples, reference)
    except ModelError:
        single = sample_inputs(graph.path, graph.inputs, shapes, batch=1)
        if all(a.shape == b.shape for a, b in zip(examples, single, strict=True)) or not _runs(reference, single):
            raise
        # A batch that the file calls open and its nodes fix.
        check_import(module, single, reference)
        return module, single
    return module, examples


def sample_inputs(
    path: Path, inputs: Sequence[TensorSpec], shapes: Sequence[Sequence[int]] | None = None, batch: int = 2
) -> tuple[torch.Tensor, ...]:
    """Normally distributed inputs, zeros and ones where the model takes integers; the same ones every time.

    Args:
        path: the file, for messages.
        inputs: its inputs.
        shapes: of every input without the batch, where the file leaves more open.
        batch: samples, where the file leaves the batch open.

    Raises:
        ModelError: a size is open, or ``shapes`` does not fit.
    """
    if shapes is not None and len(shapes) != len(inputs):
        raise ModelError(f"{path} takes {len(inputs)} inputs, {len(shapes)} input shapes are given")
    generator = torch.Generator().manual_seed(0)
    found = []
    for i, spec in enumerate(inputs):
        sizes = _sizes(path, spec, None if shapes is None else shapes[i], batch)
        dtype = torch.from_numpy(np.empty(0, spec.dtype)).dtype
        if dtype.is_floating_point:
            found.append(torch.randn(sizes, generator=generator, dtype=dtype))
        else:
            found.append(torch.randint(0, 2, sizes, generator=generator).to(dtype))
    return tuple(found)


def _sizes(path: Path, spec: TensorSpec, shape: Sequence[int] | None, batch: int) -> list[int]:
    wanted = list(spec.shape)
    if shape is not None:
        if len(shape) != len(wanted) - 1 or any(w not in (None, s) for w, s in zip(wanted[1:], shape, strict=True)):
            have = ", ".join("?" if s is None else str(s) for s in wanted[1:])
            raise ModelError(f"{path}: input '{spec.name}' has shape ({have}), got {tuple(shape)}")
        wanted[1:] = shape
    if wanted and wanted[0] is None:
        wanted[0] = batch
    if None in wanted:
        axes = [str(i) for i, size in enumerate(wanted) if size is None]
        raise ModelError(
            f"{path}: input '{spec.name}' leaves the size of axis {', '.join(axes)} open",
            hint="give example_inputs, or --set deploy.input_shape=(3,224,224)",
        )
    return [size for size in wanted if size is not None]


def _runs(reference: Reference, inputs: Sequence[torch.Tensor]) -> bool:
    try:
        reference([x.numpy() for x in inputs])
    except ModelError:
        return False
    return True
