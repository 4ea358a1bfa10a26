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
    from razordeploy.integrations.mmdeploy.algorithms import plain_weights

    def load_from_local(filename: str, map_location: Any = None) -> Any:
        """Read ``filename`` onto the CPU; mmengine copies from there."""
        path = Path(filename).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{filename} can not be found.")
        return plain_weights(read_weights_file(path, trust=False))

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


def subnets_in_their_codebase() -> None:
    """mmdeploy sends a model of ``mmrazor``'s scope to a code base that its wheels lack; ours is built by its own."""
    from mmdeploy.apis.utils import utils

    original = utils.get_codebase

    @functools.wraps(original)
    def get_codebase(deploy_cfg: Any, model_cfg: Any = None) -> Any:
        return original(deploy_cfg)

    utils.get_codebase = get_codebase


def heads_of_subnets() -> None:
    """The backend models look for ``model.head``; a subnet's config (``sub_model``) has it one level deeper."""
    from mmdeploy.codebase.base import BaseTask

    original = BaseTask.__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        folder = type(self).__module__.rpartition(".")[0]
        model = _imported(f"{folder}.classification_model")
        backend_model = getattr(model, "End2EndModel", None)
        if backend_model is not None and not hasattr(backend_model._get_head, "__wrapped__"):
            backend_model._get_head = _inner_head(backend_model._get_head)

    BaseTask.__init__ = init


def _inner_head(original: Any) -> Any:
    @functools.wraps(original)
    def get_head(self: Any) -> Any:
        whole = self.model_cfg
        inner = whole["model"]
        while "head" not in inner and "cfg" in inner:
            inner = inner["cfg"]
        self.model_cfg = {"model": inner}
        try:
            return original(self)
        finally:
            self.model_cfg = whole

    return get_head


SHIMS = [
    *(trace_exports, read_weights_only, names_for_rewriters, any_device_for_a_graph),
    *(subnets_in_their_codebase, heads_of_subnets),
]
"""In the order in which they are applied."""
