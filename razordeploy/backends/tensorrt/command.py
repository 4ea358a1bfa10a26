"""The command that builds the engine on a machine that has TensorRT."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from razordeploy.artifact import TensorSpec


def build_line(onnx: Path, inputs: Sequence[TensorSpec], batch: int, max_batch: int) -> str:
    """The ``trtexec`` line for TensorRT 10 and 11, which writes ``model.engine`` and its layers beside the graph.

    Args:
        onnx: the exported graph.
        inputs: in call order; a dynamic batch gets a profile from 1 to ``max_batch``.
        batch: samples that the engine is tuned for.
        max_batch: samples that it takes at most.
    """
    words = ["trtexec", f"--onnx={onnx}", f"--saveEngine={onnx.with_suffix('.engine')}", "--stronglyTyped"]
    if any(spec.shape and spec.shape[0] is None for spec in inputs):
        for flag, size in (("min", 1), ("opt", batch), ("max", max_batch)):
            words.append(f"--{flag}Shapes=" + ",".join(f"{s.name}:{_shape(s, size)}" for s in inputs))
    layers = onnx.with_name("engine_layers.json")
    words += ["--noTF32", "--profilingVerbosity=detailed", f"--exportLayerInfo={layers}"]
    return shlex.join(words)


def _shape(spec: TensorSpec, batch: int) -> str:
    return "x".join(str(batch if size is None else size) for size in spec.shape)
