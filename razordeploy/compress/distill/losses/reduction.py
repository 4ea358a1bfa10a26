"""How the values of a batch become one number."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from razordeploy.errors import RecipeError, nearest


def check_reduction(reduction: str, known: Iterable[str], loss: str) -> str:
    """Return ``reduction`` if ``loss`` offers it.

    Raises:
        RecipeError: it does not; names the nearest.
    """
    known = tuple(known)
    if reduction not in known:
        raise RecipeError(f"{loss}: unknown reduction {reduction!r}", hint=nearest(str(reduction), known))
    return reduction


def reduce(values: Tensor, reduction: str) -> Tensor:
    """Reduce ``values`` (N, ...).

    ``none``: as they are; ``sum``: over everything; ``mean``: sum / number of values; ``batchmean``: sum / N.
    """
    if reduction == "none":
        return values
    if reduction == "mean":
        return values.mean()
    total = values.sum()
    return total / len(values) if reduction == "batchmean" else total
