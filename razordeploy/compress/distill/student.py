"""The student of a recipe that deploys a part of it: narrowed before it is taught."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from razordeploy.assemble import is_of
from razordeploy.capture.build import locate
from razordeploy.capture.checkpoint import load_into, load_state_dict
from razordeploy.capture.openmmlab import guess_input_shape
from razordeploy.compress.algorithm.build_model import build_architecture, recipe_folder
from razordeploy.compress.algorithm.plain import as_plain
from razordeploy.config.recipe import Recipe
from razordeploy.errors import ModelError, RecipeError
from razordeploy.subnet.files import read_mapping
from razordeploy.subnet.fix import load_fix_subnet
from razordeploy.subnet.narrow import narrow
from razordeploy.subnet.static import become

_KEYS = ("architecture", "student")


def with_narrow_student(recipe: Recipe) -> Recipe:
    """The recipe with the student that its ``prune`` or ``subnet`` section says in the place of the whole one.

    The section's ``checkpoint`` has the weights that the student begins with, of the whole or of the part; without
    it they are drawn by ``recipe.seed``.

    Raises:
        RecipeError: the algorithm names no student, or nothing tells the shape of its inputs.
        UsageError, ModelError: the section does not fit the student, or what is left of it cannot be trained.
        CheckpointError: the weights fit neither the whole nor the part.
    """
    if recipe.prune is None and recipe.subnet is None:
        return recipe
    key = next((key for key in _KEYS if isinstance(recipe.model.get(key), Mapping)), None)
    if key is None:
        raise RecipeError(f"{recipe.path}: 'prune' or 'subnet' narrows the student, and the model names none")
    with recipe_folder(recipe.path.parent), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        student = build_architecture(recipe.model[key], key)
        _narrowed(recipe, student)
    return dataclasses.replace(recipe, model={**recipe.model, key: student}, prune=None, subnet=None)


def _narrowed(recipe: Recipe, student: nn.Module) -> None:
    kind, training = type(student), student.training
    as_plain(student)
    file = _weights(recipe)
    options: dict[str, Any] = {"key_mapping": recipe.key_mapping, "trust": recipe.trust_checkpoint}
    whole = file is not None and is_of(recipe, student, load_state_dict(file, trust=recipe.trust_checkpoint), file)
    if file is not None and whole:
        load_into(student, file, **options)
    _narrow(recipe, student)
    if file is not None and not whole:
        load_into(student, file, **options)
    if isinstance(student, torch.fx.GraphModule):
        raise ModelError(
            f"{kind.__name__} cannot be narrowed as a student: its code fixes a width, and the graph that is left "
            "has no modules for recorders to watch",
            hint="leave out the units whose width it fixes, or distil into an architecture that is narrow itself",
        )
    student.__class__ = kind
    student.train(training)


def _weights(recipe: Recipe) -> Any:
    section = recipe.prune or recipe.subnet
    assert section is not None
    part = recipe.prune.of if recipe.prune is not None else None
    name = section.checkpoint or (part.checkpoint if part is not None else None)
    return None if name is None else locate(name, recipe)


def _narrow(recipe: Recipe, student: nn.Module) -> None:
    shapes = recipe.deploy.input_shapes
    guess = None if shapes else guess_input_shape(recipe)
    if not shapes and guess is None:
        raise RecipeError(
            f"{recipe.path}: nothing tells the shape of the student's inputs, which narrowing it takes",
            hint="deploy=dict(input_shape=(3, 224, 224))",
        )
    generator = torch.Generator().manual_seed(recipe.seed)
    inputs = tuple(torch.randn(2, *shape, generator=generator) for shape in shapes or (guess,))  # type: ignore[misc]
    rule = recipe.prune
    part = recipe.subnet if rule is None else rule.of
    if part is not None:
        content = read_mapping(locate(part.file, recipe))
        load_fix_subnet(student, content, part.mode, part.prefix, part.extra_prefix, example_inputs=inputs)
    if rule is not None:
        found = narrow(student, choice=rule.choice, units=rule.units, round_to=rule.round_to, example_inputs=inputs)
        become(student, found.module)
