"""Stages that make a model: ``train``, ``search`` and ``export``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from razordeploy.artifact import Artifact, staged_directory, write_artifact
from razordeploy.cli.algorithm import DECIDED, DECIDED_WEIGHTS, has_choices
from razordeploy.cli.export import export
from razordeploy.cli.jobs import RecipeJob
from razordeploy.cli.stages.job import StageJob, StageResult
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.environment import versions
from razordeploy.errors import ModelError
from razordeploy.sliced import CHECKPOINT, as_recipe, resources
from razordeploy.subnet.files import read_mapping, write_mapping
from razordeploy.train.evaluate import evaluate, module_predict

SUBNET = "fix_subnet.yaml"


def run_train(job: StageJob) -> StageResult:
    """Train, and keep the weights; where training decides on a subnet, that and its weights."""
    from razordeploy.cli.train import train

    weights = train(job.recipe, work_dir=job.scratch, overrides=job.overrides, go_on=job.goes_on, resume=job.resume)
    recipe = load_recipe(job.recipe, {**job.overrides, "checkpoint": "None"})
    subnet: Mapping[str, Any] | None = None
    decided, sliced = weights.with_name(DECIDED), weights.with_name(DECIDED_WEIGHTS)
    if decided.is_file():
        subnet, weights = read_mapping(decided), sliced if sliced.is_file() else weights
    elif recipe.prune is not None or recipe.subnet is not None:
        subnet = RecipeJob.open(
            load_recipe(job.recipe, {**job.overrides, "checkpoint": repr(str(weights))})
        ).built.subnet
    kind = "sliced" if subnet is not None else "supernet" if has_choices(recipe) else "float"
    return _keep(job, kind, weights, subnet)


def run_search(job: StageJob) -> StageResult:
    """Search, and keep the subnet that was chosen, with its weights."""
    from razordeploy.cli.search import run
    from razordeploy.cli.search_result import SUBNET as FOUND
    from razordeploy.cli.search_result import WEIGHTS

    code = run(
        job.recipe,
        checkpoint=None,
        work_dir=job.scratch,
        overrides=job.overrides,
        workers=int(job.config.options.get("workers", 0)),
        trust=False,
        command=job.command,
    )
    if code >= 2:
        return StageResult(artifacts={}, exit_code=code)
    made = _keep(job, "sliced", job.scratch / WEIGHTS, read_mapping(job.scratch / FOUND))
    return StageResult(artifacts=made.artifacts, exit_code=code, figures=made.figures)


def run_export(job: StageJob) -> StageResult:
    """Fix a subnet and slice it."""
    options = job.config.options
    made = export(
        job.recipe,
        out=job.folder,
        overrides=job.overrides,
        export_channel=bool(options.get("export_channel", False)),
        recalibrate_samples=options.get("recalibrate"),
    )
    return StageResult(artifacts={"": made.path}, figures=figures_of(made))


def _keep(job: StageJob, kind: str, weights: Path, subnet: Mapping[str, Any] | None) -> StageResult:
    """Put weights and structure into the stage's artifact."""
    with staged_directory(job.folder) as staged:
        shutil.copyfile(weights, staged / CHECKPOINT)
        files = {"checkpoint": CHECKPOINT}
        if subnet is not None:
            write_mapping(staged / SUBNET, subnet)
            files["subnet"] = SUBNET
        write_artifact(
            staged,
            kind=kind,
            stage=job.config.stage,
            files=files,
            parent=job.parent,
            params={"recipe": str(Path(job.recipe).resolve()), "overrides": dict(job.overrides)},
            versions=versions(("torch", "mmengine")),
        )
    made = Artifact.load(job.folder)
    figures = figures_of(made)
    for epoch in job.scratch.glob("epoch_*.pth"):
        epoch.unlink()
    return StageResult(artifacts={"": made.path}, figures=figures)


def figures_of(artifact: Artifact) -> dict[str, Any]:
    """Size and accuracy of an artifact's model; of a supernet nothing, as no one subnet is meant."""
    if artifact.kind not in ("float", "sliced"):
        return {}
    recipe, overrides = as_recipe(artifact.path)
    return measured(load_recipe(recipe, overrides))


def measured(recipe: Recipe) -> dict[str, Any]:
    """Parameters and multiply-accumulates of a recipe's model, and the metric on its evaluation data."""
    job = RecipeJob.open(recipe)
    found: dict[str, Any] = {"size_bytes": sum(_bytes(t) for t in job.built.module.state_dict().values())}
    try:
        found |= resources(job.built.module, job.example_inputs())
    except ModelError:
        found["params"] = sum(p.numel() for p in job.built.module.parameters())
    if job.has_evaluation():
        scores = evaluate(module_predict(job.built.module), job.evaluation(), job.metric())
        found["metrics"] = {key: value for key, value in scores.items() if key != "samples"}
    return found


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
