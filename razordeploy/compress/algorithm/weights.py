"""The weights that an algorithm starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModel
from torch import nn

from razordeploy.capture.checkpoint import load_into, load_state_dict
from razordeploy.compress.algorithm.build_model import beside
from razordeploy.errors import CheckpointError

_PREFIX = "architecture."


def initialise(architecture: nn.Module, init_cfg: Any = None) -> None:
    """Give ``architecture`` its weights now: what is made of it later, by rank or as a copy, depends on them.

    A checkpoint is read by ``type='Pretrained'`` of ``init_cfg`` or else of the architecture's own. It may be an
    algorithm's, of which the architecture's part counts. Without one a model of mmengine initialises itself.

    Args:
        architecture: changed in place.
        init_cfg: mmengine's initialisation config, of the algorithm.

    Raises:
        CheckpointError: the file is missing, cannot be read or does not match.
    """
    checkpoint = pretrained(init_cfg) or pretrained(getattr(architecture, "init_cfg", None))
    if checkpoint is not None:
        path = beside(checkpoint)
        if "://" in checkpoint:
            raise CheckpointError(
                f"init_cfg would download '{checkpoint}', and nothing is downloaded",
                hint="get the file and give its path",
            )
        inside = any(key.startswith(_PREFIX) for key in load_state_dict(path))
        # What an algorithm has besides its architecture gets a name that the model has not.
        mapping = {r"^(?!architecture\.)": "algorithm.", r"^architecture\.": ""} if inside else None
        load_into(architecture, path, key_mapping=mapping, strict=not inside)
    elif isinstance(architecture, BaseModel) and not architecture.is_init:
        architecture.init_weights()
    if isinstance(architecture, BaseModel):
        # mmengine initialises what it takes for new when training starts.
        architecture._is_init = True


def pretrained(init_cfg: Any) -> str | None:
    """The checkpoint that an mmengine initialisation config loads; None: none."""
    if isinstance(init_cfg, Mapping):
        return str(init_cfg["checkpoint"]) if init_cfg.get("type") == "Pretrained" else None
    if isinstance(init_cfg, Sequence) and not isinstance(init_cfg, str):
        return next((path for path in map(pretrained, init_cfg) if path is not None), None)
    return None
