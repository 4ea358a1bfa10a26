"""mmdeploy's managers of three backends, under their stock names: intermediate files in, int8 engines out."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from razordeploy.integrations.mmdeploy.quantize import engine_files

_STOCK = {"openvino": "OpenVINOManager", "onnxruntime": "ONNXRuntimeManager", "tensorrt": "TensorRTManager"}


def register_managers() -> None:
    """Replace the managers of the stock names by ones that quantize, and that today's runtimes can run."""
    import importlib

    from mmdeploy.backend.base import BACKEND_MANAGERS

    for name, stock in _STOCK.items():
        base = getattr(importlib.import_module(f"mmdeploy.backend.{name}"), stock)
        BACKEND_MANAGERS.register(name)(_manager(name, base))


def _manager(name: str, base: Any) -> Any:
    class Manager(base):
        """Quantizes where the deploy config asks for a calibration, and converts as it is where not."""

        @classmethod
        def is_available(cls, with_custom_ops: bool = False) -> bool:
            """mmdeploy's custom operators are not needed; TensorRT's graph is made without the library."""
            return name == "tensorrt" or bool(base.is_available(with_custom_ops=False))

        @classmethod
        def get_version(cls) -> str:
            """Version of the installed package; ``None`` as text where there is none."""
            try:
                return importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                return "None"

        @classmethod
        def to_backend(
            cls,
            ir_files: Sequence[str],
            work_dir: str,
            deploy_cfg: Any = None,
            log_level: int = logging.INFO,
            device: str = "cpu",
            **kwargs: Any,
        ) -> list[str]:
            """Write the engine of each intermediate file into ``work_dir``; returns what a wrapper is built from."""
            return [str(engine_files(name, Path(file), Path(work_dir), deploy_cfg)) for file in ir_files]

        @classmethod
        def build_wrapper(
            cls,
            backend_files: Sequence[str],
            device: str = "cpu",
            input_names: Sequence[str] | None = None,
            output_names: Sequence[str] | None = None,
            deploy_cfg: Any = None,
            **kwargs: Any,
        ) -> Any:
            """The engine as mmdeploy's models call it."""
            from razordeploy.integrations.mmdeploy.wrapper import engine_wrapper

            return engine_wrapper(name, Path(backend_files[0]), output_names)

    Manager.__name__ = Manager.__qualname__ = base.__name__
    return Manager
