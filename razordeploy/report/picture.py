"""The picture of the graph: one cell for every operation, one line for every block."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from razordeploy.report.blocks import Block
from razordeploy.report.schema import BackendReport, Op, Report

STATES = {
    "int8": "int8 kernel",
    "simulated": "int8, simulated",
    "fused": "inside the kernel before it",
    "moves": "only moves values",
    "float": "float",
}
"""State of an operation -> its name in the legend, in the order of the legend."""

_PATH = 44
"""Letters of a block's path beside the picture; the whole one is in the table."""
_LETTERS = {
    "conv": ("C", "convolution"),
    "depthwise": ("D", "depthwise convolution"),
    "conv_transpose": ("T", "transposed convolution"),
    "linear": ("L", "linear"),
    "matmul": ("M", "matrix product"),
    "attention": ("A", "attention"),
    "add": ("+", "add"),
    "sub": ("−", "subtract"),
    "mul": ("×", "multiply"),
    "div": ("÷", "divide"),
    "cat": ("|", "concatenate"),
    "pool": ("P", "pooling, mean"),
    "norm": ("N", "normalization"),
    "softmax": ("S", "softmax"),
    "activation": ("f", "activation function"),
    "upsample": ("U", "upsampling"),
    "move": ("·", "reshape, slice, transpose …"),
    "other": ("o", "other"),
}
_FAMILIES = {
    "matmul": ("matmul", "attention_scores", "attention_values"),
    "pool": ("avg_pool", "adaptive_avg_pool", "global_avg_pool", "max_pool", "mean"),
    "norm": ("layer_norm",),
    "softmax": ("softmax", "log_softmax"),
    "activation": (
        *("relu", "relu6", "leaky_relu", "prelu", "elu", "hardswish", "hardsigmoid", "sigmoid", "tanh", "silu"),
        *("mish", "gelu"),
    ),
    "upsample": ("upsample_nearest", "upsample_linear"),
    "move": (
        "reshape",
        "transpose",
        "slice",
        "split",
        "expand",
        "roll",
        "pixel_shuffle",
        "pad",
        "flip",
        "im2col",
        "stack",
        "unfold",
    ),
}
_FAMILY_OF = {kind: family for family, kinds in _FAMILIES.items() for kind in kinds}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One operation."""

    number: int
    """Row in the table of all operations."""
    state: str
    letter: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """One block."""

    path: str
    parts: tuple[tuple[Cell, ...], ...]
    summary: str
    """The same in words."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Operations that stay float for one and the same reason."""

    text: str
    count: int
    kinds: str
    """The most frequent kinds, counted."""
    planned: bool
    """True: they were to run in int8."""


def state_of(op: Op) -> str:
    """State of ``op``; one that is not known counts as float."""
    return op["state"] if op["state"] in STATES else "float"


def family(kind: str) -> str:
    """Family of an operation kind, which has a letter of its own."""
    if kind.startswith(("depthwise_", "conv_transpose", "conv")):
        return next(name for name in ("depthwise", "conv_transpose", "conv") if kind.startswith(name))
    return _FAMILY_OF.get(kind, kind if kind in _LETTERS else "other")


def lines(found: Iterable[Block], ops: Sequence[Op], numbers: Sequence[int]) -> list[Line]:
    """Draw one backend's operations.

    Args:
        found: the blocks of ``ops``.
        ops: operations in execution order.
        numbers: row of each in the table of all operations.
    """
    return [
        Line(
            path=shortened(block.path),
            parts=tuple(tuple(_cell(ops[i], numbers[i]) for i in part) for part in block.parts),
            summary=_counted(Counter(STATES[state_of(ops[i])] for i in block.positions)),
        )
        for block in found
    ]


def shortened(path: str) -> str:
    """Keep the end of a long path: that is what tells it from its neighbours."""
    return path if len(path) <= _PATH else f"…{path[-_PATH + 1 :]}"


def _cell(op: Op, number: int) -> Cell:
    return Cell(number=number, state=state_of(op), letter=_LETTERS[family(op["op"])][0])


def state_legend(ops: Iterable[Op]) -> list[tuple[str, str, int]]:
    """Return (state, its name, operations in it) for the states that occur."""
    counts = Counter(map(state_of, ops))
    return [(state, name, counts[state]) for state, name in STATES.items() if counts[state]]


def letter_legend(report: Report) -> list[tuple[str, str]]:
    """Return (letter, meaning) for the kinds of operations that occur."""
    seen = {family(op["op"]) for entry in report["backends"].values() for op in entry.get("ops", [])}
    return [pair for name, pair in _LETTERS.items() if name in seen]


def float_reasons(entry: BackendReport) -> list[Reason]:
    """Put together why operations stay float: what was planned as int8 first, then by how many they are."""
    found: dict[tuple[str, bool], Counter[str]] = {}
    coverage = entry.get("coverage")
    if ops := entry.get("ops"):
        for op in ops:
            if state_of(op) == "float":
                key = (op.get("reason") or "no reason given", op.get("planned", False))
                found.setdefault(key, Counter())[op["op"]] += 1
    elif coverage:
        for lost in coverage["float"]:
            found.setdefault((lost["reason"], False), Counter())[lost["op"]] += 1
    reasons = [
        Reason(text=text, count=kinds.total(), kinds=_counted(kinds), planned=planned)
        for (text, planned), kinds in found.items()
    ]
    return sorted(reasons, key=lambda reason: (not reason.planned, -reason.count))


def _counted(counts: Counter[str], shown: int = 6) -> str:
    words = [f"{count} {name}" for name, count in counts.most_common(shown)]
    rest = counts.total() - sum(count for _, count in counts.most_common(shown))
    return ", ".join([*words, f"{rest} others"] if rest else words)
