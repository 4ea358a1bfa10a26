"""Which ``key_mapping`` would make a checkpoint fit, when all that differs is one prefix."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor


def suggest_key_mapping(model: Mapping[str, Tensor], checkpoint: Mapping[str, Tensor]) -> str | None:
    """Say which prefix to strip or to add so that ``checkpoint`` fits ``model``; None when no single one helps.

    Only a prefix that makes more keys match, in name and shape, than match already is suggested.
    """
    shapes = {key: tuple(value.shape) for key, value in model.items()}
    wanted = sum(not key.endswith("num_batches_tracked") for key in shapes)

    def matching(names: Iterable[tuple[str, Tensor]]) -> int:
        return sum(
            shapes.get(key) == tuple(value.shape) for key, value in names if not key.endswith("num_batches_tracked")
        )

    best, mapping = matching(checkpoint.items()), None
    for prefix in _prefixes(checkpoint):
        count = matching((key.removeprefix(prefix), value) for key, value in checkpoint.items())
        if count > best:
            best, mapping = count, f"{{r'^{re.escape(prefix)}': ''}}"
    for prefix in _prefixes(model):
        count = matching((prefix + key, value) for key, value in checkpoint.items())
        if count > best:
            best, mapping = count, f"{{r'^': '{prefix}'}}"
    if mapping is None:
        return None
    if best < wanted:
        return f"with key_mapping={mapping} {best} of the model's {wanted} keys match"
    left = sum(not key.endswith("num_batches_tracked") for key in checkpoint) - best
    return f"with key_mapping={mapping} everything matches" + (f", and strict=False drops {left} more" if left else "")


def _prefixes(names: Iterable[str]) -> list[str]:
    """Every ``a.``, ``a.b.`` that a name starts with, the shortest first, so that a tie keeps the simplest one."""
    found = {name[: dot.end()] for name in names for dot in re.finditer(r"\.", name)}
    return sorted(found, key=lambda prefix: (prefix.count("."), prefix))
