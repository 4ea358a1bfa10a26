"""The ``qat`` section of a recipe: how the quantized model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from razordeploy.config.sections import is_reference
from razordeploy.config.strict import Section

_KEYS = (
    *(
        "epochs",
        "batch_size",
        "lr",
        "optimizer",
        "scale_lr_mult",
        "clip_grad",
        "shift",
        "flip",
        "label_smoothing",
        "num_workers",
    ),
    *("threads", "disable_observer_begin", "freeze_bn_begin", "distill", "loss", "samples"),
)
NEVER = -1


@dataclass(frozen=True, kw_only=True)
class QATConfig:
    """Quantization-aware training, on top of the recipe's ``quantize``."""

    epochs: int = 3
    batch_size: int = 64
    """Samples per step and process."""
    lr: float = 1e-3
    """Initial learning rate; cosine decay to zero."""
    optimizer: str | Mapping[str, Any] = "sgd"
    """``sgd``, ``adamw``, or an mmengine optimizer dict."""
    scale_lr_mult: float | None = None
    """Learning rate of the learned scales, relative to ``lr``; None: 1, and 0.01 for optimizers that normalise the
    gradient (Adam and its kin), whose steps would be as large as the scales themselves."""
    clip_grad: float | None = None
    """Largest norm of the gradient of a step; 0: no limit. None: 1 where batch norms are frozen from the start, as
    nothing else keeps a step small there; else no limit."""
    shift: int = 0
    """Training images are moved by up to this many pixels."""
    flip: bool = False
    label_smoothing: float = 0.0
    num_workers: int = 0
    threads: int | None = None
    """CPU threads while training; None: torch's own."""
    disable_observer_begin: int = NEVER
    """Epoch, from 1, from which observed ranges stay as they are; -1: never."""
    freeze_bn_begin: int = 1
    """Epoch, from 1, from which batch norms use their statistics, as the engine does; -1: never before the export."""
    samples: int | None = None
    """Training samples, a seeded subset; None: all."""
    distill: Mapping[str, Any] | None = None
    """A loss between the outputs of the quantized model and of the float one: ``type`` (a name of the table of
    distillation losses) and its arguments. None: no teacher."""
    loss: str | None = None
    """``pkg.module:function`` of (outputs, targets) -> loss; None: cross entropy, or that of the model's head."""

    @property
    def max_norm(self) -> float | None:
        """Largest norm of the gradient; None: no limit."""
        if self.clip_grad is None:
            return 1.0 if self.freeze_bn_begin == 1 else None
        return self.clip_grad or None

    @classmethod
    def parse(cls, value: object, file: str) -> QATConfig:
        """Read the ``qat`` section of the recipe ``file``."""
        section = Section.of(value, file, "qat", _KEYS)
        found: dict[str, Any] = {
            "epochs": section.integer("epochs", low=1),
            "batch_size": section.integer("batch_size", low=1),
            "lr": section.number("lr", low=0.0),
            "scale_lr_mult": section.number("scale_lr_mult", low=0.0),
            "clip_grad": section.number("clip_grad", low=0.0),
            "shift": section.integer("shift", low=0),
            "flip": section.boolean("flip"),
            "label_smoothing": section.number("label_smoothing", low=0.0),
            "num_workers": section.integer("num_workers", low=0),
            "threads": section.integer("threads", low=1),
            "disable_observer_begin": section.integer("disable_observer_begin", low=NEVER),
            "freeze_bn_begin": section.integer("freeze_bn_begin", low=NEVER),
            "samples": section.integer("samples", low=1),
            "distill": _distill(section),
            "optimizer": _optimizer(section),
            "loss": _loss(section),
        }
        return cls(**{key: value for key, value in found.items() if value is not None})


def _optimizer(section: Section) -> Any:
    value = section.values.get("optimizer")
    if value is not None and not isinstance(value, str | Mapping):
        raise section.error("optimizer", "a name or dict(type='SGD', ...)")
    return value


def _loss(section: Section) -> str | None:
    name = section.string("loss")
    if name is not None and not is_reference(name):
        raise section.error("loss", "'pkg.module:function'")
    return name


def _distill(section: Section) -> Mapping[str, Any] | None:
    value = section.values.get("distill")
    if value is None or value is False:
        return None
    given = {} if value is True else {"type": value} if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        raise section.error("distill", "True, the name of a loss, or dict(type='KLDivergence', ...)")
    return {"type": "KLDivergence", **given}
