"""Subnet files of mutables: by path or alias, what each has chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from razordeploy.errors import ModelError, nearest
from razordeploy.subnet.mutables.base import BaseMutable, DumpChosen
from razordeploy.subnet.mutables.container import MutableChannelContainer
from razordeploy.subnet.mutables.derived import DerivedMutable


def own_mutables(model: nn.Module) -> Iterator[tuple[str, BaseMutable]]:
    """Mutables with a search space of their own under every path they have, then those that only others refer to.

    Masks of channel units are not among them.
    """
    named = list(model.named_modules(remove_duplicate=False))
    own = [(path, module) for path, module in named if isinstance(module, BaseMutable) and module.sources == (module,)]
    seen = {id(mutable) for _, mutable in own}
    yield from own
    for path, module in named:
        if isinstance(module, BaseMutable):
            for source in module.sources:
                if id(source) not in seen and not getattr(source, "belongs_to_unit", False):
                    yield path, source


def is_of_mutables(content: Mapping[str, Any]) -> bool:
    """Tell whether a subnet's content is of mutables."""
    values = content.values()
    return all(isinstance(value, DumpChosen) or (isinstance(value, Mapping) and "chosen" in value) for value in values)


def dump_mutables(model: nn.Module) -> dict[str, Any]:
    """``{path or alias: {"chosen": ...}}`` of every mutable.

    Raises:
        ModelError: a mutable has not chosen yet, or mutables of one alias have chosen differently.
    """
    subnet: dict[str, Any] = {}
    done: set[int] = set()
    for path, mutable in own_mutables(model):
        if id(mutable) in done:
            continue
        done.add(id(mutable))
        mutable.bind_mutable_name(path)
        key, chosen = mutable.alias or path, mutable.dump_chosen().chosen
        if subnet.setdefault(key, {"chosen": chosen})["chosen"] != chosen:
            raise ModelError(
                f"the mutables of alias '{key}' have chosen both {subnet[key]['chosen']!r} and {chosen!r}",
                hint="a mutator that groups them by alias sets them together",
            )
    return subnet


def fix_mutables(model: nn.Module, content: Mapping[str, Any], prefix: str = "", extra_prefix: str = "") -> None:
    """Fix every mutable of ``model`` at its choice in ``content``, or none of them.

    A mutable that the model holds under several paths may go by any of them. Entries of derived mutables and
    containers are passed over: they follow others. What is only on edges that a route drops needs no entry.

    Args:
        model: the supernet.
        content: what ``dump_mutables`` gives.
        prefix: what the model's paths begin with and the content's do not.
        extra_prefix: what the content's paths begin with and the model's do not.

    Raises:
        ModelError: a mutable has no choice, two, or one that it has not; or the content names what the model has not.
    """
    chosen = {key: value.chosen if isinstance(value, DumpChosen) else value["chosen"] for key, value in content.items()}

    def key_of(path: str) -> str:
        # Not lstrip(), which takes off characters.
        return extra_prefix + path.removeprefix(prefix)

    keys: dict[int, dict[str, BaseMutable]] = {}
    for path, mutable in own_mutables(model):
        keys.setdefault(id(mutable), {})[mutable.alias or key_of(path)] = mutable
    followers = (DerivedMutable, MutableChannelContainer)
    paths = model.named_modules(remove_duplicate=False)
    passed_over = {key_of(path) for path, module in paths if isinstance(module, followers)}
    known = {key for names in keys.values() for key in names}
    for key in chosen:
        if key not in known and key not in passed_over:
            raise ModelError(
                f"the subnet chooses '{key}', which {type(model).__name__} has not: it is of another model",
                hint=nearest(key, known) if known else f"{type(model).__name__} has no mutables",
            )
    plan = [_choice(names, chosen) for names in keys.values() if names.keys() & chosen.keys()]
    for mutable, choice in plan:
        mutable.check_chosen(choice)
    dropped = {id(part) for mutable, choice in plan for edge in mutable.left_out(choice) for part in edge.modules()}
    for mutable_id, names in keys.items():
        if not names.keys() & chosen.keys() and mutable_id not in dropped:
            first = next(iter(names))
            raise ModelError(
                f"the subnet has no choice for the mutable '{first}' of {type(model).__name__}",
                hint=nearest(first, chosen),
            )
    for mutable, choice in plan:
        mutable.fix_chosen(choice)


def _choice(names: Mapping[str, BaseMutable], chosen: Mapping[str, Any]) -> tuple[BaseMutable, Any]:
    """The mutable that goes by ``names``, and what is chosen for it."""
    given = [key for key in names if key in chosen]
    mutable, choice = names[given[0]], chosen[given[0]]
    mutable.bind_mutable_name(given[0])
    for key in given[1:]:
        if chosen[key] != choice:
            raise ModelError(
                f"the subnet chooses {choice!r} for '{given[0]}' and {chosen[key]!r} for '{key}', which are one mutable"
            )
    return mutable, choice
