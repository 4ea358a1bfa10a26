"""Write a quantized graph as QDQ ONNX."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from razordeploy.backends.base import ExportJob
from razordeploy.backends.onnx_passes.qdq import float_model, quantized_model
from razordeploy.backends.onnxruntime.rewrite import rewrite

_ONE_FILE = 2**31 - 2**24
"""Bytes of weights that a protobuf message surely holds."""


def convert(source: Path, out_dir: Path) -> dict[str, str]:
    """Write ``model.onnx``, the ONNX file ``source`` itself; weights that one file cannot hold lie beside it."""
    model = ir.load(source)
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights < _ONE_FILE:
        ir.external_data.load_to_model(model)
        ir.save(model, out_dir / "model.onnx")
        return {"engine": "model.onnx"}
    ir.save(model, out_dir / "model.onnx", external_data="model.onnx.data")
    return {"engine": "model.onnx", "engine_weights": "model.onnx.data"}


def export(job: ExportJob) -> dict[str, str]:
    """Write ``model.onnx`` (int8 QDQ) and ``float.onnx`` into ``job.out_dir``."""
    ir.save(quantized_model(job.marked, job.plan, job.params, rewrite), job.out_dir / "model.onnx")
    if not job.with_twin:
        return {"engine": "model.onnx"}
    ir.save(float_model(job.twin_marked), job.out_dir / "float.onnx")
    return {"engine": "model.onnx", "float": "float.onnx"}
