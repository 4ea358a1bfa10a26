"""Write a quantized graph as QDQ ONNX."""

from __future__ import annotations

import onnx_ir as ir

from razordeploy.backends.base import ExportJob
from razordeploy.backends.onnx_passes.qdq import float_model, quantized_model
from razordeploy.backends.onnxruntime.rewrite import rewrite


def export(job: ExportJob) -> dict[str, str]:
    """Write ``model.onnx`` (int8 QDQ) and ``float.onnx`` into ``job.out_dir``."""
    ir.save(quantized_model(job.marked, job.plan, job.params, rewrite), job.out_dir / "model.onnx")
    ir.save(float_model(job.marked), job.out_dir / "float.onnx")
    return {"engine": "model.onnx", "float": "float.onnx"}
