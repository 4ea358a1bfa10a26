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
from razordeploy.cli.algorithm import as_deployed, decided, fix_algorithm, has_choices, open_algorithm
from razordeploy.cli.given import resolve
from razordeploy.cli.jobs import RecipeJob
from razordeploy.compress.nas.recalibrate import recalibrate
from razordeploy.config.recipe import Recipe, load_recipe
from razordeploy.config.sections import DeployConfig
from razordeploy.config.structure import SubnetConfig
from razordeploy.errors import UsageError
from razordeploy.sliced import CHECKPOINT, SubnetJob, state_digest, write_subnet
from razordeploy.subnet.channels import with_channels
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.fix_mutables import is_of_mutables
from razordeploy.subnet.mutators.channel import ChannelMutator
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
    recalibrate_samples: int | None = None,
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
        recalibrate_samples=recalibrate_samples,
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
    recalibrate_samples: int | None = None,
) -> Artifact:
    """As ``run``, without a word.

    ``recalibrate_samples`` of the recipe's calibration data set the statistics of batch norms; None: as many as the
    recipe calibrates on where the subnet is one of a search space, none elsewhere.

    Raises:
        UsageError: nothing says which subnet.
        RazorDeployError: the recipe, the subnet or the weights cannot be used.
    """
    path, options = resolve(recipe_path, overrides)
    recipe = load_recipe(path, options)
    if subnet is not None:
        recipe = dataclasses.replace(recipe, prune=None, subnet=_from_file(recipe, subnet))
    weights: str | Path | None = checkpoint
    if recipe.prune is None and has_choices(recipe):
        recipe, weights = decided(recipe, checkpoint)
    found = _of_algorithm(recipe, weights, export_channel, trust, recalibrate_samples) or _of_recipe(
        recipe, weights, export_channel, trust, recalibrate_samples
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
            full=found.full,
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
    full: nn.Module | None
    """The whole model; None where it is a supernet, of which no one subnet is all."""
    inputs: tuple[Any, ...]
    deploy: DeployConfig


def _of_recipe(
    recipe: Recipe, checkpoint: str | Path | None, export_channel: bool, trust: bool, samples: int | None
) -> _Found:
    """What the recipe's ``prune`` or ``subnet`` section says of its model."""
    if recipe.prune is None and recipe.subnet is None:
        raise UsageError(
            f"nothing says which part of {recipe.model_name} is wanted",
            hint="give --subnet FILE, or --set prune.choice=0.5",
        )
    job = RecipeJob.open(recipe, checkpoint, trust=trust)
    inputs = job.example_inputs()
    if job.built.subnet is None:
        raise UsageError(
            f"a subnet of a search space that is pruned, as {recipe.path} says, has no subnet file",
            hint="deploy it with 'razordeploy ptq' and the same options",
        )
    content: Mapping[str, Any] = job.built.subnet
    full = None if is_of_mutables(content) else _whole(recipe)
    if export_channel:
        if full is None:
            raise UsageError("a subnet of mutables has no channel units", hint="leave out --export-channel")
        content = with_channels(full, content, inputs)
    found = _Found(subnet=content, module=job.built.module, full=full, inputs=inputs, deploy=job.deploy)
    return _recalibrated(found, job, samples or 0)


def _of_algorithm(
    recipe: Recipe, checkpoint: str | Path | None, export_channel: bool, trust: bool, samples: int | None
) -> _Found | None:
    """What the recipe's algorithm has chosen, or is told to by the subnet file; None where it chooses nothing."""
    if recipe.prune is not None or not has_choices(recipe):
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
    supernet = not isinstance(algorithm.mutator, ChannelMutator)
    subnet, static = fix_algorithm(algorithm, content, export_channel=export_channel, example_inputs=inputs)
    module = as_deployed(static.eval())
    own = recipe.calibration.num_samples if supernet and job.has_calibration() else 0
    return _recalibrated(
        _Found(
            subnet=subnet, module=module, full=None if supernet else _whole(recipe), inputs=inputs, deploy=job.deploy
        ),
        job,
        own if samples is None else samples,
    )


def _recalibrated(found: _Found, job: RecipeJob, samples: int) -> _Found:
    """Give the batch norms the statistics of this subnet: a supernet gathers them over all of its subnets at once."""
    if samples:
        recalibrate(found.module, job.calibration(), num_samples=samples)
    return found


def _from_file(recipe: Recipe, file: Path) -> SubnetConfig:
    section = recipe.prune or recipe.subnet
    given = SubnetConfig(file=str(file), checkpoint=None if section is None else section.checkpoint)
    if recipe.subnet is None:
        return given
    return dataclasses.replace(recipe.subnet, file=str(file))


def _whole(recipe: Recipe) -> nn.Module:
    """The model that the subnet is a part of, with random weights."""
    return build_model(dataclasses.replace(deployed(recipe), prune=None, subnet=None, checkpoint=None)).module
