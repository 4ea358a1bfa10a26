"""Mixed precision where the machine has it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn


class Bfloat16OptimWrapper(OptimWrapper):
    """Runs the model in bfloat16 where torch's autocast says so; its range is float32's, so no loss is scaled.

    mmengine's own wrapper refuses a CPU.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast on the device that the model is on."""
        device = next((p.device.type for p in model.parameters()), "cpu")
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield


def amp_section() -> dict[str, Any]:
    """What of mmengine's ``optim_wrapper`` asks for mixed precision: its own on a GPU, bfloat16 on a CPU."""
    if torch.cuda.is_available():
        return {"type": "AmpOptimWrapper", "loss_scale": "dynamic"}
    return {"type": Bfloat16OptimWrapper}
