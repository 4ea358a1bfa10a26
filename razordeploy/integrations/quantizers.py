"""mmrazor's quantizers: each puts a backend's fake quants into a model."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from razordeploy.backends.base import Backend
from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.capture.openmmlab import make_plain
from razordeploy.config.mm_quant import quantizer_sections
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.errors import UsageError
from razordeploy.integrations.prepared import PreparedModel
from razordeploy.quantization.qat.choose import chosen_fake_quants
from razordeploy.quantization.qconfig import check_patterns, settings_for
from razordeploy.quantization.statistics import collect, resolve


class BaseQuantizer:
    """Says where a backend quantizes, with which observers and fake quants.

    Args:
        options: the keys of mmrazor's quantizers: ``global_qconfig`` or ``qconfig``, ``qconfig_mapping``,
            ``custom_qconfig``, ``input_layer``, ``output_layer``; ``backend`` takes the place of the class's own.
            ``tracer``, ``fuse_config`` and ``extra_redundant_fakequants`` are taken and not needed: the captured graph
            and the backend's rules tell.

    Raises:
        RecipeError: an unknown key (names the nearest), or a value that cannot be.
    """

    default_backend: ClassVar[str] = ""

    def __init__(self, **options: Any) -> None:
        name = type(self).__name__
        backend, sections = quantizer_sections({"type": name, **options}, name, name)
        self.backend_name = backend or self.default_backend
        self.config = QuantizeConfig.parse(sections, name)

    @property
    def backend(self) -> Backend:
        """The backend; loaded when it is first asked for."""
        return find_backend(self.backend_name)

    def prepare(
        self, model: nn.Module, concrete_args: Mapping[str, Any] | None = None, *, example_inputs: Any = None
    ) -> PreparedModel:
        """A copy of ``model`` with fake quants, which have no scale until they have seen data.

        Args:
            model: takes images and returns a tensor or several; or OpenMMLab's, with a ``mode``.
            concrete_args: taken for mmrazor's sake. One graph, that of ``mode="tensor"``, serves every mode.
            example_inputs: inputs to capture the model with: a tensor ``(N, ...)`` or a tuple of such.

        Raises:
            UsageError: there are no example inputs, or another mode is asked for.
            RazorDeployError: the model cannot be captured, or the config asks for what the backend has not.
        """
        if example_inputs is None:
            raise UsageError(
                f"{type(self).__name__}.prepare needs inputs to capture the model with",
                hint="prepare(model, example_inputs=torch.zeros(1, 3, 224, 224))",
            )
        unknown = {key: value for key, value in (concrete_args or {}).items() if key not in ("mode", "data_samples")}
        if unknown:
            raise UsageError(f"expected nothing but 'mode' in concrete_args, got {unknown}")
        inputs = tuple(example_inputs) if isinstance(example_inputs, list | tuple) else (example_inputs,)
        captured = capture(plain(model), inputs, keep_norms=True)
        check_patterns(self.config, captured)
        backend = self.backend
        plan = backend.plan(captured, settings_for(backend.spec, self.config))
        params = resolve(captured, plan, collect(captured, [plan], [captured.example_inputs]))
        make = chosen_fake_quants(captured, plan, self.config)
        return PreparedModel(captured, plan, params, make, backend)

    def post_process_for_deploy(self, prepared: PreparedModel) -> nn.Module:
        """What the engine computes, as ``prepared`` is trained now: ``PreparedModel.deploy_model``."""
        return prepared.deploy_model()


class TorchNativeQuantizer(BaseQuantizer):
    """For PyTorch's own compiler."""

    default_backend = "torch_native"


class NativeQuantizer(TorchNativeQuantizer):
    """An older name of it."""


class TorchDefaultQuantizer(BaseQuantizer):
    """GML's: torch's own scheme, unless ``backend`` names another."""

    default_backend = "torch_native"


class OpenVINOQuantizer(BaseQuantizer):
    """For OpenVINO."""

    default_backend = "openvino"


class TensorRTQuantizer(BaseQuantizer):
    """For TensorRT."""

    default_backend = "tensorrt"


class AcademicQuantizer(BaseQuantizer):
    """For simulation with any bit width."""

    default_backend = "academic"


QUANTIZERS: dict[str, type[BaseQuantizer]] = {
    "AcademicQuantizer": AcademicQuantizer,
    "BaseQuantizer": BaseQuantizer,
    "NativeQuantizer": NativeQuantizer,
    "OpenVINOQuantizer": OpenVINOQuantizer,
    "TensorRTQuantizer": TensorRTQuantizer,
    "TorchDefaultQuantizer": TorchDefaultQuantizer,
    "TorchNativeQuantizer": TorchNativeQuantizer,
}


def plain(model: nn.Module) -> nn.Module:
    """``model`` itself where it takes tensors alone; of OpenMMLab's, whose calls have a mode, a copy that does.

    The copy shares every parameter and buffer.
    """
    if "mode" not in inspect.signature(model.forward).parameters:
        return model
    tensors = [*model.parameters(), *model.buffers()]
    return make_plain(copy.deepcopy(model, {id(t): t for t in tensors}))[0]


def random_inputs(shape: tuple[int, ...]) -> torch.Tensor:
    """Inputs of ``shape``, always the same."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))
