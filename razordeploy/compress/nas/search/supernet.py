"""A trained supernet, ready to be searched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from razordeploy.capture.build import BuiltModel, build_model, locate
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.config.recipe import Recipe
from razordeploy.errors import CheckpointError, ModelError
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.table import MUTATORS

_TRAIN = "razordeploy train {}, then --checkpoint FILE"


@dataclass(frozen=True, kw_only=True)
class Supernet:
    """A supernet with its weights, and what may be chosen in it."""

    built: BuiltModel
    mutator: Any
    space: SearchSpace

    @property
    def module(self) -> nn.Module:
        """The supernet; takes plain tensors."""
        return self.built.module

    def weights_digest(self) -> str:
        """Hash of the names and values of all parameters and buffers."""
        digest = hashlib.sha256()
        for name, tensor in self.module.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def fixed(self, subnet: dict[str, Any], example_inputs: Any) -> tuple[dict[str, Any], nn.Module]:
        """Content of the subnet file for ``subnet``, and the plain, static model with the supernet's weights."""
        self.mutator.set_choices(subnet)
        by_units = isinstance(self.mutator, ChannelMutator)
        content, static = export_fix_subnet(
            self.module,
            slice_weight=True,
            mutator=self.mutator if by_units else None,
            example_inputs=example_inputs if by_units else None,
        )
        assert static is not None
        return content, static.eval()


def open_supernet(recipe: Recipe, checkpoint: str | Path | None = None, *, trust: bool = False) -> Supernet:
    """Build the supernet of ``recipe``, load its weights, and find its search space.

    Args:
        recipe: its ``model`` is a supernet, or an algorithm that holds one as its ``architecture``; its ``mutator`` is
            used, by default a ``NasMutator``.
        checkpoint: takes the place of the recipe's own.
        trust: let the checkpoint run code while it is loaded.

    Raises:
        CheckpointError: there are no weights, or they are of another search space.
        ModelError: the model cannot be built, or has nothing to choose.
    """
    given = checkpoint if checkpoint is not None else recipe.checkpoint or recipe.config.get("load_from")
    if given is None:
        raise CheckpointError(
            f"{recipe.path}: a search needs a trained supernet, and there is no checkpoint",
            hint=_TRAIN.format(recipe.path),
        )
    if checkpoint is None and not Path(locate(given, recipe)).expanduser().exists():
        raise CheckpointError(f"{recipe.path}: no trained supernet '{given}'", hint=_TRAIN.format(recipe.path))
    try:
        built = build_model(recipe, given, trust=trust)
    except CheckpointError as error:
        raise _of_another_space(error, recipe) from error
    mutator = build(recipe.model.get("mutator") or {"type": "NasMutator"}, MUTATORS, "mutator")
    mutator.prepare_from_supernet(built.module)
    if not mutator.search_groups:
        raise ModelError(
            f"{recipe.path}: {type(built.module).__name__} has nothing to choose",
            hint="give it mutables such as OneShotMutableOP, or a mutator=dict(type='OneShotChannelMutator', ...)",
        )
    return Supernet(built=built, mutator=mutator, space=SearchSpace.of_mutator(mutator))


def _of_another_space(error: CheckpointError, recipe: Recipe) -> CheckpointError:
    """The same error, with a word on search spaces where the file was read and does not match."""
    text = str(error)
    if "does not match" not in text:
        return error
    return CheckpointError(f"{text} (is it of another search space than {recipe.path}?)")
