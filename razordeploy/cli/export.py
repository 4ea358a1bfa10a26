"""``razordeploy export``: a subnet of a model, fixed, sliced and written."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from razordeploy.artifact import Artifact
from razordeploy.assemble import assemble
from razordeploy.capture.build import build_model, locate
from razordeploy.capture.config_model import deployed
from razordeploy.cli.algorithm import as_deployed, fix_algorithm, open_algorithm
from razordeploy.cli.given import resolve
from razordeploy.cli.jobs import RecipeJob
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.config.sections import DeployConfig
from razordeploy.config.structure import SubnetConfig
from razordeploy.errors import UsageError
from razordeploy.sliced import CHECKPOINT, SubnetJob, state_digest, write_subnet
from razordeploy.subnet.channels import with_channels
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.older_files import modernised


def run(
    recipe_path: str,
    *,
    checkpoint: Path | None,
    subnet: Path | None,
    slice_weight: bool,
    export_channel: bool,
    out: Path,
    overrides: Mapping[str, str],
    trust: bool,
) -> None:
    """Write the subnet that the recipe, or ``subnet``, says to the folder ``out``."""
    made = export(
        recipe_path,
        checkpoint=checkpoint,
        subnet=subnet,
        slice_weight=slice_weight,
        export_channel=export_channel,
        out=out,
        overrides=overrides,
        trust=trust,
    )
    console = Console()
    console.print(f"wrote {made.path}: {', '.join(made.files.values())}", markup=False, soft_wrap=True)
    for key in ("params", "macs"):
        if "subnet" in made.metrics and "full" in made.metrics:
            part, full = made.metrics["subnet"][key], made.metrics["full"][key]
            console.print(f"{key}: {part:,} of {full:,} ({part / full:.1%})", markup=False, soft_wrap=True)
    if made.kind == "sliced":
        console.print(f"next: {shlex.join(['razordeploy', 'ptq', str(out)])}", markup=False, soft_wrap=True)


def export(
    recipe_path: str,
    *,
    checkpoint: Path | None = None,
    subnet: Path | None = None,
    slice_weight: bool = True,
    export_channel: bool = False,
    out: Path,
    overrides: Mapping[str, str],
    trust: bool = False,
) -> Artifact:
    """As ``run``, without a word.

    Raises:
        UsageError: nothing says which subnet.
        RazorDeployError: the recipe, the subnet or the weights cannot be used.
    """
    path, options = resolve(recipe_path, overrides)
    recipe = load_recipe(path, options)
    if subnet is not None:
        recipe = dataclasses.replace(recipe, prune=None, subnet=_from_file(recipe, subnet))
    found = _of_algorithm(recipe, checkpoint, export_channel, trust) or _of_recipe(
        recipe, checkpoint, export_channel, trust
    )

    def reread(folder: Path) -> nn.Module:
        section = SubnetConfig(file=str(folder / "fix_subnet.yaml"))
        again = dataclasses.replace(recipe, prune=None, subnet=section, checkpoint=None, key_mapping={})
        return assemble(again, folder / CHECKPOINT, inputs=lambda built: found.inputs).module

    return write_subnet(
        out,
        SubnetJob(
            subnet=found.subnet,
            module=found.module if slice_weight else None,
            full=_whole(recipe),
            example_inputs=found.inputs,
            deploy=found.deploy,
            parent=state_digest(found.module),
            origin={
                "recipe": str(recipe.path.resolve()),
                "overrides": dict(options),
                "checkpoint": None if checkpoint is None else str(checkpoint.resolve()),
            },
            reread=reread,
        ),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Found:
    """A fixed subnet."""

    subnet: Mapping[str, Any]
    module: nn.Module
    inputs: tuple[Any, ...]
    deploy: DeployConfig


def _of_recipe(recipe: Recipe, checkpoint: Path | None, export_channel: bool, trust: bool) -> _Found:
    """What the recipe's ``prune`` or ``subnet`` section says of its model."""
    if recipe.prune is None and recipe.subnet is None:
        raise UsageError(
            f"nothing says which part of {recipe.model_name} is wanted",
            hint="give --subnet FILE, or --set prune.choice=0.5",
        )
    job = RecipeJob.open(recipe, checkpoint, trust=trust)
    inputs = job.example_inputs()
    content: Mapping[str, Any] = job.built.subnet or {}
    if export_channel:
        content = with_channels(_whole(recipe), content, inputs)
    return _Found(subnet=content, module=job.built.module, inputs=inputs, deploy=job.deploy)


def _of_algorithm(recipe: Recipe, checkpoint: Path | None, export_channel: bool, trust: bool) -> _Found | None:
    """What the recipe's algorithm has chosen, or is told to by the subnet file; None where it chooses nothing."""
    if recipe.prune is not None:
        return None
    algorithm = open_algorithm(recipe, checkpoint, trust=trust)
    if algorithm is None:
        return None
    content = None
    if recipe.subnet is not None:
        content = modernised(read_mapping(locate(recipe.subnet.file, recipe)))
    plain = dataclasses.replace(recipe, prune=None, subnet=None, checkpoint=None)
    job = RecipeJob.open(plain)
    inputs = job.example_inputs()
    subnet, static = fix_algorithm(algorithm, content, export_channel=export_channel, example_inputs=inputs)
    return _Found(subnet=subnet, module=as_deployed(static.eval()), inputs=inputs, deploy=job.deploy)


def _from_file(recipe: Recipe, file: Path) -> SubnetConfig:
    section = recipe.prune or recipe.subnet
    given = SubnetConfig(file=str(file), checkpoint=None if section is None else section.checkpoint)
    if recipe.subnet is None:
        return given
    return dataclasses.replace(recipe.subnet, file=str(file))


def _whole(recipe: Recipe) -> nn.Module:
    """The model that the subnet is a part of, with random weights."""
    return build_model(dataclasses.replace(deployed(recipe), prune=None, subnet=None, checkpoint=None)).module
