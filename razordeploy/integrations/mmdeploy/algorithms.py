"""Configs and checkpoints of algorithms, given to mmdeploy's scripts in the place of a plain model's."""

from __future__ import annotations

import copy
import functools
import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from razordeploy.capture.checkpoint import WRAPPED, load_state_dict
from razordeploy.capture.config_model import read_model_config
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.mm_quant import is_quantized_architecture
from razordeploy.errors import RecipeError
from razordeploy.quantization.qat.graph import with_tensors

TRAINED = Path("razordeploy") / "trained"
"""In mmdeploy's work dir: the engine with the scales of a quantized checkpoint."""
_SCALES = ("network.", "qmodels.")


def plain_config(model_cfg: Any) -> Any:
    """The model config with the trained model of an algorithm in the algorithm's place; another one as it is.

    Raises:
        RecipeError: an algorithm whose model is not what is deployed, such as a pruning one: says what is.
    """
    model = model_cfg.get("model")
    if not isinstance(model, Mapping) or not isinstance(model.get("architecture"), Mapping):
        return model_cfg
    from razordeploy.compress.distill.algorithms.table import ALGORITHMS as DISTILLATION

    name = str(model.get("type")).rpartition(".")[2]
    if not is_quantized_architecture(model) and name not in DISTILLATION:
        raise RecipeError(
            f"'{name}' is an algorithm, whose model as a whole is not what is deployed",
            hint="razordeploy export CONFIG --slice-weight, then model = dict(type='mmrazor.sub_model', cfg=..., "
            "fix_subnet=...) with the sliced weights",
        )
    inner = dict(model["architecture"])
    if "cfg_path" in inner:
        inner = read_model_config(inner, Path.cwd(), "architecture")
    if inner.get("data_preprocessor") is None and model.get("data_preprocessor") is not None:
        inner["data_preprocessor"] = model["data_preprocessor"]
    found = copy.deepcopy(model_cfg)
    found["model"] = inner
    if inner.get("data_preprocessor") is not None:
        # The scripts read the one at the top.
        found["data_preprocessor"] = copy.deepcopy(inner["data_preprocessor"])
    return found


def plain_weights(content: Any) -> Any:
    """What a checkpoint file holds, an algorithm's reduced to its ``architecture``.

    mmdeploy builds the plain model, and would leave all its weights random without a word.
    """
    if not isinstance(content, Mapping):
        return content
    key = next((k for k in ("state_dict", "model") if isinstance(content.get(k), Mapping)), None)
    state = content if key is None else content[key]
    weights = {name.removeprefix(WRAPPED): value for name, value in state.items() if str(name).startswith(WRAPPED)}
    if not weights or any(str(name).startswith("backbone.") for name in state):
        return content
    logger().info(
        f"razordeploy: the checkpoint is an algorithm's: {len(weights)} tensors of its architecture are taken"
    )
    return weights if key is None else {**content, key: weights}


def plain_models_in_tasks() -> None:
    """Let mmdeploy's tasks see the trained model of an algorithm's config."""
    from mmdeploy.codebase.base import BaseTask

    original = BaseTask.__init__
    if getattr(original, "razordeploy_plain", False):
        return

    @functools.wraps(original)
    def init(self: Any, model_cfg: Any, *args: Any, **kwargs: Any) -> None:
        original(self, plain_config(model_cfg), *args, **kwargs)

    init.razordeploy_plain = True  # type: ignore[attr-defined]
    BaseTask.__init__ = init


def keep_scales(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Before ``torch2onnx``: make the engine of a quantized checkpoint, whose scales no ONNX file of mmdeploy holds.

    It goes to ``TRAINED`` in the work dir, where the conversion finds it; one of an earlier run is removed.
    """
    names = ("img", "work_dir", "save_file", "deploy_cfg", "model_cfg", "model_checkpoint", "device")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    folder = Path(given["work_dir"]) / TRAINED
    shutil.rmtree(folder, ignore_errors=True)
    from mmdeploy.utils import get_backend, load_config

    deploy_cfg, model_cfg = load_config(given["deploy_cfg"], given["model_cfg"])
    checkpoint = given.get("model_checkpoint")
    if checkpoint is not None and is_quantized_architecture(model_cfg.get("model")):
        _keep(model_cfg, deploy_cfg, Path(checkpoint), get_backend(deploy_cfg).value, folder)
    return args, kwargs


def _keep(model_cfg: Any, deploy_cfg: Any, checkpoint: Path, backend: str, folder: Path) -> None:
    state = load_state_dict(checkpoint)
    if not any(key.startswith(_SCALES) for key in state):
        logger().warning(f"razordeploy: {checkpoint} has no scales: it is calibrated, as a float model is")
        return
    model = _built(model_cfg, deploy_cfg)
    if model.quantizer.backend_name != backend:
        logger().warning(
            f"razordeploy: {checkpoint} was quantized for '{model.quantizer.backend_name}', and the deploy config says "
            f"'{backend}': its weights are taken, and calibrated anew"
        )
        return
    model.load_state_dict(state)
    if not all(quant.initialized for quant in model.quantized.fake_quants()):
        logger().warning(
            f"razordeploy: {checkpoint} has no scales of activations that fit here (mmrazor's sit elsewhere in its "
            "graphs): its weights are taken, and calibrated anew"
        )
        return
    artifact = model.eval().quantized.export(folder, with_scores)
    logger().info(f"razordeploy: the scales of {checkpoint} are in {artifact.path}; no calibration is needed")


def _built(model_cfg: Any, deploy_cfg: Any) -> Any:
    from mmdeploy.utils import get_input_shape
    from mmengine.registry import DefaultScope

    from razordeploy.data.mm import registry_scope
    from razordeploy.registry import build_model

    config = copy.deepcopy(dict(model_cfg["model"]))
    config.pop("float_checkpoint", None)
    shape = get_input_shape(deploy_cfg)  # width, height
    if shape:
        config["input_shapes"] = (1, 3, int(shape[1]), int(shape[0]))
    scope = str(model_cfg.get("default_scope") or "mmcls")
    with registry_scope(scope), DefaultScope.overwrite_default_scope(scope):
        return build_model(config, "model")


def with_scores(captured: CapturedModel) -> CapturedModel:
    """The graph with a softmax after its one output: mmdeploy's classifiers give scores, not logits."""
    found = with_tensors(captured, {})
    graph = found.graph
    output = next(node for node in graph.nodes if node.op == "output")
    (value,) = output.args[0] if isinstance(output.args[0], list | tuple) else (output.args[0],)
    with graph.inserting_before(output):
        scores = graph.call_function(torch.ops.aten.softmax.int, (value, 1))
    scores.meta = {**value.meta, "val": torch.softmax(value.meta["val"], 1)}
    output.replace_input_with(value, scores)
    found.graph_module.recompile()
    return replace(found)


def logger() -> logging.Logger:
    """mmdeploy's."""
    from mmdeploy.utils import get_root_logger

    found: logging.Logger = get_root_logger()
    return found
