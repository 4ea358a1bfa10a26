"""Search groups of mutables: by hand, by alias, or each alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.mutables.base import BaseMutable
from razordeploy.subnet.mutables.channel import BaseMutableChannel


def source_mutables(supernet: nn.Module) -> dict[str, BaseMutable]:
    """The mutables with a search space of their own that are no channels, by path, each once.

    Those that only derived mutables refer to go by the path of the first of these.
    """
    found: dict[int, tuple[str, BaseMutable]] = {}
    for path, module in supernet.named_modules():
        if isinstance(module, BaseMutable) and module.sources == (module,):
            found[id(module)] = (path, module)
    for path, module in supernet.named_modules():
        if isinstance(module, BaseMutable):
            for source in module.sources:
                found.setdefault(id(source), (path, source))
    return {path: mutable for path, mutable in found.values() if not isinstance(mutable, BaseMutableChannel)}


def build_groups(mutables: dict[str, BaseMutable], custom_groups: Sequence[Sequence[str]] = ()) -> dict[str, list[Any]]:
    """Group mutables and name the groups.

    Args:
        mutables: by path.
        custom_groups: groups of paths and aliases; an alias stands for all of its mutables. What is in none of them is
            grouped by alias, and what has no alias is a group of its own.

    Returns:
        Members by name: the alias of the first member, else its path.

    Raises:
        ModelError: a name that is neither alias nor path, one that is used twice, or members with different choices.
    """
    by_alias: dict[str, list[str]] = {}
    for path, mutable in mutables.items():
        if mutable.alias:
            by_alias.setdefault(mutable.alias, []).append(path)
    used: set[str] = set()
    members: list[list[str]] = []
    for group in custom_groups:
        paths: list[str] = []
        for name in group:
            if name not in by_alias and name not in mutables:
                raise ModelError(
                    f"custom_groups names '{name}', which is neither the alias nor the path of a mutable",
                    hint=nearest(name, [*by_alias, *mutables]),
                )
            paths += by_alias.get(name, [name])
        for path in paths:
            if path in used:
                raise ModelError(f"custom_groups has '{path}' twice; an alias stands for all of its mutables")
            used.add(path)
        if paths:
            members.append(paths)
    for alias, paths in by_alias.items():
        rest = [path for path in paths if path not in used]
        if rest:
            used.update(by_alias[alias])
            members.append(rest)
    members += [[path] for path in mutables if path not in used]
    return {_name(paths, mutables): _equal([mutables[path] for path in paths]) for paths in members}


def _name(paths: list[str], mutables: dict[str, BaseMutable]) -> str:
    return mutables[paths[0]].alias or paths[0]


def _equal(members: list[BaseMutable]) -> list[Any]:
    for member in members[1:]:
        if list(member.choices) != list(members[0].choices):
            raise ModelError(
                f"the mutables '{members[0].name}' and '{member.name}' are in one search group, but have different "
                f"choices: {list(members[0].choices)} and {list(member.choices)}"
            )
    return list(members)
