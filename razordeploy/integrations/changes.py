"""Lines of mmrazor's configs that mean something else here, and how values are written out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 120
# Type in a config -> (keyword and value it is about, or None, what is different).
_TYPES: dict[str, tuple[tuple[str, Any] | None, str]] = {
    "DKDLoss": (
        ("reduction", "mean"),
        "DKDLoss(reduction='mean') was the batch size times the paper's loss there; here it is the mean",
    ),
    "AngleWiseRKD": (None, "AngleWiseRKD: with_l2_norm is False unless it is asked for, as in the paper's code"),
    "DistanceWiseRKD": (None, "DistanceWiseRKD: with_l2_norm is False unless it is asked for, as in the paper's code"),
    "Darts": (("unroll", True), "Darts(unroll=True): the virtual step moved no weight there; here it is taken"),
    "EvolutionSearchLoop": (None, "evolution: no candidate is scored twice, batch norms are recalibrated on copies"),
    "DCFF": (None, "DCFF: the temperature falls over epochs, as in the paper; there it fell over iterations"),
    "BigNAS": (
        None,
        "BigNAS: the losses of one step are summed; accumulative_counts divided each by their number there",
    ),
    "AutoSlim": (None, "AutoSlim: the losses of one step are summed; accumulative_counts divided each by their number"),
    "LSQEpochBasedLoop": (None, "LSQEpochBasedLoop: a resumed run goes on with the scales that were saved"),
    "QATValLoop": (None, "QATValLoop: the figures are those of the quantized model; there they were the float model's"),
}


def changes(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(top-level key, what is different) for everything in ``config`` that is known to mean something else here."""
    for key, value in config.items():
        said: set[str] = set()
        for section in _dicts(value):
            name = str(section.get("type", "")).rpartition(".")[2]
            condition, text = _TYPES.get(name, (None, ""))
            if not text or name in said or (condition and section.get(condition[0]) != condition[1]):
                continue
            if name.endswith("WiseRKD") and "with_l2_norm" in section:
                continue
            said.add(name)
            yield key, text
        for section in _dicts(value):
            if section.get("qdtype") == "quint8" and section.get("is_symmetry") is True and "quint8" not in said:
                said.add("quint8")
                yield (
                    "quantize" if key in ("model", "global_qconfig") else key,
                    "an unsigned symmetric grid leaves half of its levels unused after a ReLU: is_symmetry=False",
                )


def _dicts(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ():
        yield from _dicts(inner)


def literal(value: Any, indent: int) -> str:
    """Python source of a config's value: dictionaries as ``dict(...)``, broken where they do not fit a line."""
    flat = _flat(value)
    if len(flat) + indent <= WIDTH - 20:
        return flat
    inner = indent + 4
    pad, end = " " * inner, " " * indent
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            rows = [f"{pad}{key}={literal(item, inner)}," for key, item in value.items()]
            return "\n".join(["dict(", *rows, f"{end})"])
        rows = [f"{pad}{_flat(key)}: {literal(item, inner)}," for key, item in value.items()]
        return "\n".join(["{", *rows, f"{end}}}"])
    if isinstance(value, list | tuple):
        first, last = ("[", "]") if isinstance(value, list) else ("(", ")")
        rows = [f"{pad}{literal(item, inner)}," for item in value]
        return "\n".join([first, *rows, f"{end}{last}"])
    return flat


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and key.isidentifier() for key in value):
            return f"dict({', '.join(f'{key}={_flat(item)}' for key, item in value.items())})"
        return "{" + ", ".join(f"{_flat(key)}: {_flat(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(_flat, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_flat, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, str) and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    return repr(value)
