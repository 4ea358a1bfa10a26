"""mmrazor's ``MMArchitectureQuant``: a model and its quantizer, as one model that mmengine's Runner trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, fx, nn

from razordeploy.artifact import Artifact
from razordeploy.capture.checkpoint import load_into
from razordeploy.compress.algorithm.build_model import build_architecture
from razordeploy.errors import CheckpointError, RecipeError
from razordeploy.integrations.prepared import PreparedModel
from razordeploy.integrations.quantizers import BaseQuantizer, random_inputs
from razordeploy.quantization.qat.folded import FoldedLayer
from razordeploy.quantization.qat.model import QATModel
from razordeploy.registry import build_model

MODES = ("tensor", "predict", "loss")
_ARCHITECTURE, _NETWORK, _OLDER = "architecture.", "network.", "qmodels."


class MMArchitectureQuant(QATModel):
    """A float model, and its quantized twin of the same weights.

    mmrazor captures one graph per mode and keeps their fake quants alike; here the one graph of ``mode="tensor"``
    serves all modes, and what follows it (the head's loss or predictions) is the model's own code. The twin's weights
    are those of ``architecture``: training one trains the other, and a checkpoint has them once, under
    ``architecture.``. So mmrazor's checkpoints can be loaded: weights, and the scales of weights. Those of activations
    sit elsewhere in its graphs: calibrate again.

    Args:
        architecture: the float model: its config, or ``pkg.module:factory`` and arguments, or a module.
        quantizer: config of a quantizer, or a quantizer.
        deploy_cfg: taken for mmrazor's sake; mmdeploy's rewrites are not needed.
        data_preprocessor: None: that of ``architecture``; of a plain module, batches (inputs, labels) are taken.
        forward_modes: a part of ``tensor``, ``predict`` and ``loss``.
        float_checkpoint: weights of ``architecture``.
        input_shapes: of the images to capture with, ``(N, C, H, W)``.
        init_cfg: of mmengine.

    Raises:
        RecipeError: an unknown mode, or ``architecture`` or ``quantizer`` is none.
        RazorDeployError: the model cannot be built, loaded or captured.
    """

    def __init__(
        self,
        architecture: Mapping[str, Any] | nn.Module,
        quantizer: Mapping[str, Any] | BaseQuantizer,
        deploy_cfg: Any = None,
        data_preprocessor: Any = None,
        forward_modes: Sequence[str] = MODES,
        float_checkpoint: str | None = None,
        input_shapes: Sequence[int] = (1, 3, 224, 224),
        init_cfg: Any = None,
    ) -> None:
        unknown = set(forward_modes) - set(MODES)
        if unknown:
            raise RecipeError(f"expected forward_modes among {', '.join(MODES)}, got {sorted(unknown)}")
        float_model = _architecture(architecture, data_preprocessor)
        if getattr(float_model, "bbox_head", None) is not None:
            raise RecipeError(
                f"expected a classifier or a plain module, got the detector {type(float_model).__name__}",
                hint="detectors go by the command line: this config is a recipe of razordeploy ptq and qat",
            )
        if float_checkpoint is not None:
            load_into(float_model, float_checkpoint)
        made = quantizer if isinstance(quantizer, BaseQuantizer) else build_model(quantizer, "quantizer")
        if not isinstance(made, BaseQuantizer):
            raise RecipeError(f"expected a quantizer, got {type(made).__name__}", hint="mmrazor.OpenVINOQuantizer")
        example = random_inputs(tuple(input_shapes))
        network = made.prepare(float_model, {"mode": "tensor"}, example_inputs=example)
        head = getattr(float_model, "head", None)
        super().__init__(
            network,
            getattr(float_model, "data_preprocessor", None),
            losses=getattr(head, "_get_loss", None),
            predictions=getattr(head, "_get_predictions", None),
        )
        self.init_cfg = init_cfg
        self.quantizer, self.forward_modes, self.deploy_cfg = made, tuple(forward_modes), deploy_cfg
        # In a tuple: its tensors are the network's, and are to be trained and moved once.
        self._architecture = (float_model,)
        self._tied = _same_tensors(float_model, network)
        self._share()
        self.register_state_dict_post_hook(_with_architecture)
        self.register_load_state_dict_pre_hook(_take_architecture)

    @property
    def architecture(self) -> nn.Module:
        """The float model."""
        return self._architecture[0]

    @property
    def quantized(self) -> PreparedModel:
        """Its quantized twin."""
        assert isinstance(self.network, PreparedModel)
        return self.network

    @property
    def qmodels(self) -> dict[str, PreparedModel]:
        """The quantized twin by mode; it is one and the same."""
        return dict.fromkeys(self.forward_modes, self.quantized)

    def forward(  # type: ignore[override]  # mmrazor's order of arguments
        self, inputs: Any, data_samples: Any = None, mode: str = "tensor", targets: Any = None
    ) -> Any:
        """``tensor``: what the twin returns; ``loss``: a dict of losses; ``predict``: data samples, or class indices.

        Args:
            inputs: images ``(N, C, H, W)``.
            data_samples: OpenMMLab's, or labels ``(N,)``.
            mode: one that is not among ``forward_modes`` is run by ``architecture``.
            targets: labels ``(N,)``, in place of ``data_samples``.
        """
        wanted = data_samples if targets is None else targets
        if mode in MODES and mode not in self.forward_modes:
            return self.architecture(inputs, wanted, mode=mode)  # it has a mode: build_architecture saw to that
        return super().forward(inputs, None, wanted, mode=mode)

    def calibrate_step(self, data: Any) -> Any:
        """Run one batch of the dataloader through the twin, whose observers see it; returns predictions."""
        with torch.no_grad():
            return self._run_forward(self.data_preprocessor(data, False), mode="predict")

    def sync_qparams(self, src_mode: str) -> None:
        """Nothing: the graphs of all modes are one."""

    def get_deploy_model(self) -> fx.GraphModule:
        """What the engine computes, in torch: images -> logits.

        Raises:
            DataError: a fake quant has no scale yet: calibrate or train first.
        """
        return self.quantized.deploy_model()

    def export(self, out_dir: str | Path) -> Artifact:
        """Write the engine of the quantizer's backend into ``out_dir``, as ``razordeploy.load_engine`` takes it.

        Raises:
            DataError: a fake quant has no scale yet.
            RazorDeployError: the backend is missing, or cannot build the engine.
        """
        return self.quantized.export(out_dir)

    def _apply(self, fn: Any, recurse: bool = True) -> MMArchitectureQuant:
        super()._apply(fn, recurse)
        self.architecture._apply(fn, recurse)
        self._share()  # buffers are replaced when they move
        return self

    def _share(self) -> None:
        """Let ``architecture`` hold the twin's own tensors."""
        for name, twin in self._tied.items():
            owner, leaf = _place(self.architecture, name)
            twin_owner, twin_leaf = _place(self.network, twin)
            value = getattr(twin_owner, twin_leaf)
            if leaf in owner._parameters and not isinstance(value, nn.Parameter):
                # Not trained: a buffer there, a parameter here.
                twin_owner._buffers[twin_leaf] = getattr(owner, leaf).data
            elif leaf in owner._parameters:
                owner._parameters[leaf] = value
            else:
                owner._buffers[leaf] = value


class MMArchitectureQuantDDP(MMDistributedDataParallel):
    """``MMDistributedDataParallel``: nothing has to be built anew when the model has moved."""


WRAPPERS: dict[str, type] = {"MMArchitectureQuantDDP": MMArchitectureQuantDDP}
ALGORITHMS: dict[str, type] = {"MMArchitectureQuant": MMArchitectureQuant}


def _architecture(config: Mapping[str, Any] | nn.Module, data_preprocessor: Any) -> nn.Module:
    if isinstance(config, Mapping) and data_preprocessor is not None and ":" not in str(config.get("type")):
        config = {"data_preprocessor": data_preprocessor, **config}
    return build_architecture(config, "architecture")


def _place(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, leaf = name.rpartition(".")
    return module.get_submodule(owner), leaf


def _named_tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _same_tensors(architecture: nn.Module, network: PreparedModel) -> dict[str, str]:
    """Name of a tensor of ``architecture`` -> that of its twin in ``network``."""
    sources = {t.data_ptr(): name for t, name in network.sources() if t.numel()}
    return {
        name: sources[tensor.data_ptr()]
        for name, tensor in _named_tensors(architecture).items()
        if tensor.numel() and tensor.data_ptr() in sources
    }


def _with_architecture(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """The weights, once, under the names that a float model knows."""
    assert isinstance(module, MMArchitectureQuant)
    for twin in module._tied.values():
        state.pop(f"{prefix}{_NETWORK}{twin}", None)
    for name, tensor in module.architecture.state_dict(keep_vars=True).items():
        state[f"{prefix}{_ARCHITECTURE}{name}"] = tensor.detach()


def _take_architecture(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any, strict: bool, missing: list[str],
    unexpected: list[str], errors: list[str],
) -> None:  # fmt: skip
    """Give ``architecture`` its weights, which are the twin's; translate mmrazor's scales; keep what is not there."""
    assert isinstance(module, MMArchitectureQuant)
    start = prefix + _ARCHITECTURE
    weights = {k.removeprefix(start): state.pop(k) for k in [k for k in state if k.startswith(start)]}
    older = {k.removeprefix(prefix): state.pop(k) for k in [k for k in state if k.startswith(prefix + _OLDER)]}
    if weights:
        loaded = _loaded(module, weights)
        missing.extend(start + k for k in loaded.missing_keys if not k.endswith("num_batches_tracked"))
        unexpected.extend(start + k for k in loaded.unexpected_keys)
    if older:
        _take_scales(module.quantized, older)
    for name, value in module.network.state_dict().items():
        own = name in module._tied.values()
        if own or (older or not any(k.startswith(prefix + _NETWORK) for k in state)):
            state.setdefault(f"{prefix}{_NETWORK}{name}", value)


def _loaded(module: MMArchitectureQuant, weights: Mapping[str, Tensor]) -> Any:
    own = module.architecture.state_dict()
    untied = set(own) - set(module._tied)
    moved = [k for k in untied if k in weights and own[k].is_floating_point() and not torch.equal(own[k], weights[k])]
    if moved and any(name not in module._tied.values() for name, _ in module.quantized.trained()):
        raise CheckpointError(
            f"'{moved[0]}' of the checkpoint is computed with others when the graph is captured, and is there already",
            hint="give the file as float_checkpoint",
        )
    return module.architecture.load_state_dict(weights, strict=False)


@torch.no_grad()
def _take_scales(network: PreparedModel, older: Mapping[str, Tensor]) -> None:
    """Scales of weights from the state of one of mmrazor's graphs; a folded layer's are relative to its norm."""
    mode = next((m for m in ("predict", "tensor", "loss") if any(k.startswith(f"{_OLDER}{m}.") for k in older)), "")
    for path, name, layer in network.weight_fake_quants():
        found = older.get(f"{_OLDER}{mode}.{path}.weight_fake_quant.scale")
        quant: Any = network.module.get_submodule(name)
        if found is None or found.numel() not in (1, quant.scale.numel()):
            continue
        scale = found.detach().float().abs().reshape(quant.scale.shape if found.numel() > 1 else ())
        scale = scale.expand_as(quant.scale).clone()
        if layer is not None:
            folded = network.module.get_submodule(layer)
            assert isinstance(folded, FoldedLayer)
            scale = scale / folded.unit() if folded.relative else scale
        quant.scale.data = scale.to(quant.scale)
        quant.zero_point.data = torch.zeros_like(quant.zero_point)
        quant.initialized_flag.fill_(True)
