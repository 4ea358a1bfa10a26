"""razordeploy: the shortest trustworthy way from a trained PyTorch model to a small int8 engine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name -> module that defines it; loaded on first use, so that the command line starts without torch.
_NAMES = {
    "Artifact": "razordeploy.artifact",
    "Engine": "razordeploy.backends.loaded",
    "channel_units": "razordeploy.subnet.channel_graph",
    "export_fix_subnet": "razordeploy.subnet.fix",
    "load_engine": "razordeploy.backends.loaded",
    "load_fix_subnet": "razordeploy.subnet.fix",
    "load_model": "razordeploy.sliced",
    "prune": "razordeploy.subnet.slice",
    "ptq": "razordeploy.api",
    "qat": "razordeploy.api_training",
}

if TYPE_CHECKING:
    from razordeploy.api import ptq as ptq
    from razordeploy.api_training import qat as qat
    from razordeploy.artifact import Artifact as Artifact
    from razordeploy.backends.loaded import Engine as Engine
    from razordeploy.backends.loaded import load_engine as load_engine
    from razordeploy.sliced import load_model as load_model
    from razordeploy.subnet.channel_graph import channel_units as channel_units
    from razordeploy.subnet.fix import export_fix_subnet as export_fix_subnet
    from razordeploy.subnet.fix import load_fix_subnet as load_fix_subnet
    from razordeploy.subnet.slice import prune as prune

__all__ = [
    "Artifact",
    "Engine",
    "__version__",
    "channel_units",
    "export_fix_subnet",
    "load_engine",
    "load_fix_subnet",
    "load_model",
    "prune",
    "ptq",
    "qat",
]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'razordeploy' has no attribute '{name}'")
    return getattr(importlib.import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
