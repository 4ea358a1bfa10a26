"""Write a quantized graph as OpenVINO IR."""

from __future__ import annotations

import onnx_ir as ir

from razordeploy.backends.base import ExportJob
from razordeploy.backends.onnx_passes.qdq import float_model, quantized_model
from razordeploy.errors import BackendError, StorageError
from razordeploy.lazy import require


def export(job: ExportJob) -> dict[str, str]:
    """Write ``model.xml``/``.bin`` (int8) and ``float.xml``/``.bin`` into ``job.out_dir``."""
    quantized = quantized_model(job.marked, job.plan, job.params)
    _save(quantized, job, "model")
    _save(float_model(job.marked), job, "float")
    return {"engine": "model.xml", "engine_weights": "model.bin", "float": "float.xml", "float_weights": "float.bin"}


def _save(model: ir.Model, job: ExportJob, stem: str) -> None:
    ov = require("openvino", extra="openvino")
    try:
        converted = ov.Core().read_model(ir.to_proto(model).SerializeToString())
    except RuntimeError as error:
        raise BackendError(f"OpenVINO cannot read the exported graph: {str(error).strip().splitlines()[-1]}") from error
    target = job.out_dir / f"{stem}.xml"
    try:
        ov.save_model(converted, target, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        # All that OpenVINO says of a full disk, a quota or ulimit -f.
        raise StorageError(
            f"cannot write {target.with_suffix('.bin')}: the disk is full or the file too large",
            hint="free some space or give a folder on another disk",
        ) from error
