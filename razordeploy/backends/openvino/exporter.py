"""Write a quantized graph as OpenVINO IR."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx_ir as ir

from razordeploy.backends.base import ExportJob
from razordeploy.backends.onnx_passes.qdq import float_model, quantized_model
from razordeploy.backends.openvino.rewrite import rewrite, written_out_hard_sigmoid
from razordeploy.errors import BackendError, StorageError
from razordeploy.lazy import require


def export(job: ExportJob) -> dict[str, str]:
    """Write ``model.xml``/``.bin`` (int8) and ``float.xml``/``.bin`` into ``job.out_dir``."""
    quantized = quantized_model(job.marked, job.plan, job.params, rewrite)
    _save(quantized, job, "model")
    files = {"engine": "model.xml", "engine_weights": "model.bin"}
    if not job.with_twin:
        return files
    plain = float_model(job.twin_marked)
    written_out_hard_sigmoid(plain)
    _save(plain, job, "float")
    return {**files, "float": "float.xml", "float_weights": "float.bin"}


def convert(source: Path, out_dir: Path) -> dict[str, str]:
    """Write ``model.xml``/``.bin`` of the ONNX file ``source``; its operations keep their names."""
    _write_ir(source, ir.load(source), out_dir / "model.xml")
    return {"engine": "model.xml", "engine_weights": "model.bin"}


def _save(model: ir.Model, job: ExportJob, stem: str) -> None:
    # Weights go through a file beside the graph: as one protobuf message they would be in memory three times.
    with tempfile.TemporaryDirectory(dir=job.out_dir) as folder:
        path = Path(folder) / "graph.onnx"
        ir.save(model, path, external_data="weights.bin")
        _write_ir(path, model, job.out_dir / f"{stem}.xml")


def _write_ir(path: Path, model: ir.Model, target: Path) -> None:
    ov = require("openvino", extra="openvino")
    try:
        converted = ov.Core().read_model(path)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise BackendError(f"OpenVINO cannot read the ONNX graph: {reason}") from error
    _keep_names(converted, model)
    _write(ov, converted, target)


def _write(ov: Any, model: Any, target: Path) -> None:
    try:
        ov.save_model(model, target, compress_to_fp16=False)
    except RuntimeError as error:
        if "iostream" not in str(error):
            raise
        # All that OpenVINO says of a full disk, a quota or ulimit -f.
        raise StorageError(
            f"cannot write {target.with_suffix('.bin')}: the disk is full or the file too large",
            hint="free some space or give a folder on another disk",
        ) from error


def _keep_names(converted: Any, model: ir.Model) -> None:
    """OpenVINO calls the operation that writes an output by the output's name; coverage looks for its own."""
    for result, output in zip(converted.get_results(), model.graph.outputs, strict=True):
        producer = output.producer()
        if producer is not None and producer.name:
            result.input_value(0).get_node().set_friendly_name(producer.name)
