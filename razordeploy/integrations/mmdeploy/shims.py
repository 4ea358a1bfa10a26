"""What of mmdeploy and mmengine does not run beside today's PyTorch, Python and OpenVINO, made to run."""

from __future__ import annotations

import functools
import importlib
import platform
from pathlib import Path
from typing import Any

_REWRITERS = ("function_rewriter", "rewriter_utils", "module_rewriter", "symbolic_rewriter")
_EVALUATED = ("torch", "mmdeploy", "mmpretrain", "mmcls", "mmcv", "mmengine", "transformers")


def trace_exports() -> None:
    """mmdeploy's rewriters need the tracing exporter; PyTorch 2.9 made the other one the default."""
    import torch

    original = torch.onnx.export
    if getattr(original, "razordeploy", False):
        return

    @functools.wraps(original)
    def export(*args: Any, **kwargs: Any) -> Any:
        kwargs.setdefault("dynamo", False)
        return original(*args, **kwargs)

    export.razordeploy = True  # type: ignore[attr-defined]
    torch.onnx.export = export


def read_weights_only() -> None:
    """mmengine reads checkpoints in a way that PyTorch 2.6 refuses; this one runs nothing that is in the file."""
    from mmengine.runner.checkpoint import CheckpointLoader

    from razordeploy.capture.weights_file import read_weights_file

    def load_from_local(filename: str, map_location: Any = None) -> Any:
        """Read ``filename`` onto the CPU; mmengine copies from there."""
        path = Path(filename).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{filename} can not be found.")
        return read_weights_file(path, trust=False)

    CheckpointLoader.register_scheme(prefixes="", loader=load_from_local, force=True)


def names_for_rewriters() -> None:
    """The rewriters import modules by ``exec`` in a function; from Python 3.13 on ``eval`` does not see them there."""
    if tuple(int(part) for part in platform.python_version_tuple()[:2]) < (3, 13):
        return
    found = {name: module for name in _EVALUATED if (module := _imported(name)) is not None}
    for name in _REWRITERS:
        vars(importlib.import_module(f"mmdeploy.core.rewriters.{name}")).update(found)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def any_device_for_a_graph() -> None:
    """mmdeploy refuses TensorRT on a CPU, where the graph alone is made, and simulated."""
    from mmdeploy.apis.utils import utils

    from razordeploy.backends.registry import find_backend

    original = utils.check_backend_device

    @functools.wraps(original)
    def check(deploy_cfg: Any, device: str) -> None:
        from mmdeploy.utils import get_backend

        if get_backend(deploy_cfg).value != "tensorrt" or find_backend("tensorrt").absent() is None:
            original(deploy_cfg=deploy_cfg, device=device)

    utils.check_backend_device = check


SHIMS = [trace_exports, read_weights_only, names_for_rewriters, any_device_for_a_graph]
"""In the order in which they are applied."""
