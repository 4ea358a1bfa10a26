"""What all algorithms share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from mmengine.model import BaseModel, is_model_wrapper
from torch import Tensor, nn

from razordeploy.compress.algorithm.build import build_foreign, split_type
from razordeploy.compress.algorithm.build_model import build_architecture
from razordeploy.errors import ModelError

Losses = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Where a training run is."""

    iteration: int = 0
    """Steps done."""
    epoch: int = 0
    """Epochs done."""
    epoch_length: int = 1
    """Steps of one epoch."""
    epochs: int = 1
    """Epochs of the whole run; of one that counts steps, as many as they make, rounded up."""


class BaseAlgorithm(BaseModel):
    """Holds the model that is compressed and is called as that model is.

    Args:
        architecture: the student; see ``build_architecture``.
        data_preprocessor: of the batches; None: the student's own.
        init_cfg: mmengine's initialisation config.
    """

    def __init__(
        self,
        architecture: Any,
        data_preprocessor: Any = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        student = build_architecture(architecture, "architecture")
        if data_preprocessor is None:
            data_preprocessor = getattr(student, "data_preprocessor", None)
        elif isinstance(data_preprocessor, Mapping):
            data_preprocessor = _build_preprocessor(data_preprocessor)
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.architecture = student
        self.schedule = Schedule()
        """Kept up to date by ``ScheduleHook`` while a run trains this."""

    @property
    def student(self) -> nn.Module:
        """The model that is trained."""
        return self.architecture

    def forward(
        self, inputs: Tensor, data_samples: Any = None, mode: str = "tensor", targets: Tensor | None = None
    ) -> Any:
        """``loss``: what is minimised, by name; ``predict`` and ``tensor``: as the student alone.

        Args:
            inputs: images (N, C, H, W).
            data_samples: of OpenMMLab's models.
            mode: ``loss``, ``predict`` or ``tensor``.
            targets: class indices (N,) of plain classifiers, instead of ``data_samples``.
        """
        samples = targets if data_samples is None else data_samples
        if mode == "loss":
            return self.loss(inputs, samples)
        return self.student(inputs, samples, mode=mode)

    def loss(self, inputs: Tensor, data_samples: Any = None) -> Losses:
        """What is minimised in a training step, by name."""
        return self.student(inputs, data_samples, mode="loss")

    def check_batch(self, data: Any) -> None:
        """Compute the losses of one batch as a training step would.

        Raises:
            ModelError: they cannot be computed, are not finite, or depend on nothing that is trained.
        """
        losses = self._run_forward(self.data_preprocessor(data, True), mode="loss")
        check_losses(self.parse_losses(losses))


def check_losses(parsed: tuple[Any, Mapping[str, Any]]) -> None:
    """Refuse losses that cannot be minimised.

    Raises:
        ModelError: one is not finite, or their sum has no gradient.
    """
    total, named = parsed
    # The sum says least.
    for name, value in sorted(named.items(), key=lambda item: item[0] == "loss"):
        if isinstance(value, Tensor) and not bool(value.isfinite().all()):
            raise ModelError(f"'{name}' is {value.item()} in the first batch", hint="check the weights and the data")
    if not isinstance(total, Tensor) or not total.requires_grad:
        raise ModelError(
            f"nothing to minimise: none of {', '.join(named)} depends on a parameter that is trained",
            hint="losses that are minimised have 'loss' in their name",
        )


def unwrap(module: nn.Module) -> nn.Module:
    """The module inside mmengine's wrapper of it for several processes, or itself."""
    return cast(nn.Module, module.module) if is_model_wrapper(module) else module


def add_prefix(losses: Mapping[str, Any], prefix: str) -> Losses:
    """``loss`` -> ``prefix.loss``."""
    return {f"{prefix}.{name}": value for name, value in losses.items()}


def disable_inplace(module: nn.Module) -> None:
    """Let no submodule overwrite its input, which a recorder may have kept."""
    for submodule in module.modules():
        if getattr(submodule, "inplace", False) is True:
            vars(submodule)["inplace"] = False


def _build_preprocessor(config: Mapping[str, Any]) -> Any:
    name, keywords = split_type({"type": "mmcls.ClsDataPreprocessor", **config}, "data_preprocessor")
    if "." not in name:
        # What the predecessor's recipes name without a scope is mmengine's own.
        name = f"mmengine.{name}"
    return build_foreign(name, keywords, "data_preprocessor")
