"""``razordeploy channel-units``: the units of a model, as a config that says their widths."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from razordeploy.cli.algorithm import channel_mutator, has_choices, open_algorithm
from razordeploy.cli.given import resolve
from razordeploy.cli.jobs import RecipeJob
from razordeploy.config.recipe import load_recipe
from razordeploy.errors import ModelError
from razordeploy.storage import atomic_write
from razordeploy.strict_json import json_text
from razordeploy.subnet.channels import units_of
from razordeploy.subnet.files import yaml_text
from razordeploy.subnet.mutators.channel import ChannelMutator


def run(
    recipe_path: str,
    *,
    with_channel: bool,
    with_init_args: bool,
    choice: bool,
    output_path: Path | None,
    overrides: Mapping[str, str],
) -> None:
    """Print the template as JSON, or write it to ``output_path`` (YAML where its name says so)."""
    mutator = find_units(recipe_path, overrides)
    if not mutator.mutable_units:
        reasons = "; ".join(f"{unit.name}: {unit.reason}" for unit in mutator.all_units[:3])
        raise ModelError(f"nothing in the model of {recipe_path} can be pruned ({reasons or 'it has no channels'})")
    if choice:
        template = mutator.choice_template
    else:
        template = mutator.config_template(with_channels=with_channel, with_unit_init_args=with_init_args)
    if output_path is None:
        print(json_text(template))
        return
    is_yaml = output_path.suffix in (".yaml", ".yml")
    atomic_write(output_path, yaml_text(template) if is_yaml else json_text(template))
    print(f"wrote {output_path}: {len(mutator.mutable_units)} units that can be pruned")


def find_units(recipe_path: str, overrides: Mapping[str, str]) -> ChannelMutator:
    """The mutator of the recipe's algorithm, or one that has traced its plain model; random weights do."""
    path, options = resolve(recipe_path, overrides)
    recipe = dataclasses.replace(load_recipe(path, options), checkpoint=None, prune=None, subnet=None)
    if has_choices(recipe):
        return channel_mutator(open_algorithm(recipe), recipe)
    job = RecipeJob.open(recipe)
    return units_of(job.built.module, job.example_inputs())
