"""The same float module through the tools a user would pick instead: NNCF, and ONNX Runtime's quantize_static."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the rivals' progress bars and warnings out of the table."""
    logging.disable(logging.WARNING)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def export_onnx(module: torch.nn.Module, shape: Sequence[int], path: Path) -> Path:
    """Float ONNX by torch's own exporter; its batch is dynamic where the model's code allows it, else 2."""
    for shapes in (({0: torch.export.Dim("batch")},), None):
        try:
            with quiet():
                torch.onnx.export(
                    module,
                    (torch.randn(2, *shape),),
                    str(path),
                    input_names=["x"],
                    dynamo=True,
                    dynamic_shapes=shapes,
                    external_data=False,
                )
            break
        except torch.onnx.errors.OnnxExporterError:
            if shapes is None:
                raise
    return path


def nncf_openvino(module: torch.nn.Module, shape: Sequence[int], data: Sequence[np.ndarray], folder: Path) -> Path:
    """NNCF's default post-training quantization on OpenVINO, through ONNX; returns the .xml."""
    import openvino as ov

    source = export_onnx(module, shape, folder / "nncf_float.onnx")
    with quiet():
        return nncf_quantize(ov.Core().read_model(source), data, folder)


def nncf_quantize(model: Any, data: Sequence[np.ndarray], folder: Path) -> Path:
    """The same for a model that OpenVINO has converted."""
    import nncf
    import openvino as ov

    quantized = nncf.quantize(model, nncf.Dataset(list(data)), subset_size=len(data))
    ov.save_model(quantized, folder / "nncf.xml", compress_to_fp16=False)
    return folder / "nncf.xml"


def ort_static(module: torch.nn.Module, shape: Sequence[int], data: Sequence[np.ndarray], folder: Path) -> Path:
    """ONNX Runtime's quantize_static: QDQ, u8 activations, s8 weights, per channel; returns the .onnx."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.items = iter(data)

        def get_next(self) -> dict[str, np.ndarray] | None:
            item = next(self.items, None)
            return None if item is None else {"x": item}

    source = export_onnx(module, shape, folder / "ort_float.onnx")
    with quiet():
        quant_pre_process(str(source), str(folder / "ort_pre.onnx"), skip_symbolic_shape=True)
        quantize_static(
            str(folder / "ort_pre.onnx"),
            str(folder / "ort.onnx"),
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )
    return folder / "ort.onnx"
