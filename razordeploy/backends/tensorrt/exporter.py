"""Write a quantized graph as explicitly quantized ONNX, check it, and build its engine where that is possible."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx_ir as ir

from razordeploy.backends.base import ExportJob
from razordeploy.backends.onnx_passes.qdq import float_model, quantized_model
from razordeploy.backends.tensorrt.builder import Profile, build
from razordeploy.backends.tensorrt.rewrite import rewrite
from razordeploy.backends.tensorrt.rules import check
from razordeploy.backends.tensorrt.runtime import absent

_ONE_FILE = 2**31 - 2**24
"""Bytes of weights that a protobuf message surely holds."""


def export(job: ExportJob) -> dict[str, str]:
    """Write ``model.onnx`` (int8 pairs), ``float.onnx`` and ``findings.json`` and, with a GPU, both engines."""
    quantized = quantized_model(job.marked, job.plan, job.params, rewrite)
    files = {**_save(quantized, job.out_dir, "model", "onnx"), **_findings(quantized, job.out_dir)}
    if job.with_twin:
        files.update(_save(float_model(job.twin_marked), job.out_dir, "float", "onnx_float"))
    if absent() is None:
        profile = Profile.of(job.options)
        wanted = (("engine", "model"), ("float", "float")) if job.with_twin else (("engine", "model"),)
        for role, stem in wanted:
            build(job.out_dir / f"{stem}.onnx", job.out_dir / f"{stem}.engine", profile)
            files[role] = f"{stem}.engine"
    return files


def convert(source: Path, out_dir: Path) -> dict[str, str]:
    """Write ``model.onnx``, the ONNX file ``source`` itself, what the rules say of it and, with a GPU, its engine."""
    model = ir.load(source)
    ir.external_data.load_to_model(model)
    files = {**_save(model, out_dir, "model", "onnx"), **_findings(model, out_dir)}
    if absent() is None:
        build(out_dir / "model.onnx", out_dir / "model.engine", Profile.of({}))
        files["engine"] = "model.engine"
    return files


def _save(model: ir.Model, folder: Path, stem: str, role: str) -> dict[str, str]:
    weights = sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)
    if weights < _ONE_FILE:
        ir.save(model, folder / f"{stem}.onnx")
        return {role: f"{stem}.onnx"}
    ir.save(model, folder / f"{stem}.onnx", external_data=f"{stem}.onnx.data")
    return {role: f"{stem}.onnx", f"{role}_weights": f"{stem}.onnx.data"}


def _findings(model: ir.Model, folder: Path) -> dict[str, str]:
    found: list[dict[str, Any]] = [asdict(finding) for finding in check(model)]
    (folder / "findings.json").write_text(json.dumps(found, indent=1) + "\n")
    return {"findings": "findings.json"}
