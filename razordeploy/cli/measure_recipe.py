"""The accuracy of a recipe's own model, before or without an engine."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table
from torch import nn

from razordeploy.capture.build import locate
from razordeploy.capture.checkpoint import load_state_dict
from razordeploy.cli.jobs import RecipeJob
from razordeploy.config.mm_quant import is_quantized_architecture
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.data.mm import registry_scope
from razordeploy.report.wording import fixed
from razordeploy.train.evaluate import evaluate, module_predict


def evaluate_recipe(table: Table, path: Path, checkpoint: Path | None, overrides: Mapping[str, str]) -> None:
    """Add a row: the float model with ``checkpoint`` or its own; of ``MMArchitectureQuant``, the quantized one too."""
    recipe = load_recipe(path, overrides)
    job = RecipeJob.open(recipe, checkpoint)
    found = evaluate(module_predict(job.built.module), job.evaluation(), job.metric())
    metric = next(k for k in found if k != "samples")
    simulated = "-"
    quantized = _quantized(recipe, checkpoint, job)
    if quantized is not None:
        simulated = fixed(evaluate(module_predict(quantized), job.evaluation(), job.metric())[metric])
    table.add_row(str(path), fixed(found[metric]), simulated, "-", "-", f"{found['samples']:.0f}", "-")


def _quantized(recipe: Recipe, checkpoint: Path | None, job: RecipeJob) -> nn.Module | None:
    """What a checkpoint of ``MMArchitectureQuant`` computes; None where it is none, or has no scales."""
    file = checkpoint if checkpoint is not None else recipe.checkpoint
    if file is None or not is_quantized_architecture(recipe.config.get("model")):
        return None
    state = load_state_dict(locate(file, recipe))
    if not any(key.startswith(("network.", "qmodels.")) for key in state):
        return None
    from razordeploy.integrations.architecture_quant import MMArchitectureQuant
    from razordeploy.quantization.qat.phases import validation_phase
    from razordeploy.registry import build_model

    config = copy.deepcopy(dict(recipe.config["model"]))
    config.pop("float_checkpoint", None)
    if recipe.deploy.input_shapes:
        config["input_shapes"] = (1, *recipe.deploy.input_shapes[0])
    with registry_scope(job.scope):
        model = build_model(config, "model")
    assert isinstance(model, MMArchitectureQuant)
    model.load_state_dict(state)
    validation_phase(model)
    quantized = model.quantized
    return quantized.eval() if all(quant.initialized for quant in quantized.fake_quants()) else None
