"""Find operations that an exporter wrote out in pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from razordeploy.capture.onnx_import.graph import OnnxGraph, OnnxNode

_COMMUTATIVE = {"Add", "Mul"}


@dataclass(frozen=True)
class Call:
    """An operation of one type on these terms; ``Add`` and ``Mul`` in either order."""

    type: str
    terms: tuple[Term, ...]
    holds: Callable[[OnnxNode, Mapping[str, np.ndarray]], bool] | None = None
    """Further condition on the node, given the graph's constants; inputs beyond ``terms`` are its own to judge."""


@dataclass(frozen=True)
class Either:
    """One of several terms."""

    terms: tuple[Term, ...]


Term = Call | Either | str | float
"""A name stands for a value, the same one wherever it comes again; a number for a constant of that value."""


def call(type: str, *terms: Term, holds: Callable[..., bool] | None = None) -> Call:
    """Write a pattern: ``call("Mul", "x", call("Sigmoid", "x"))``."""
    return Call(type, terms, holds)


def either(*terms: Term) -> Either:
    """Write alternatives."""
    return Either(terms)


@dataclass(frozen=True, kw_only=True)
class Match:
    """Where a pattern was found."""

    values: dict[str, str] = field(default_factory=dict)
    """Name in the pattern -> name in the graph."""
    nodes: tuple[OnnxNode, ...] = ()
    """The operations, the last one first."""


class Finder:
    """Looks for patterns in one graph."""

    def __init__(self, graph: OnnxGraph) -> None:
        self.constants = graph.constants
        self.producers = {name: node for node in graph.nodes for name in node.outputs}
        self.readers: dict[str, list[OnnxNode]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.readers.setdefault(name, []).append(node)
        self.returned = {spec.name for spec in graph.outputs}

    def find(self, pattern: Call, node: OnnxNode) -> Match | None:
        """The match that ends in ``node``, of which no other operation reads an inner value."""
        return next((m for m in self._match(pattern, node.outputs[0], Match()) if self._is_closed(m)), None)

    def _is_closed(self, match: Match) -> bool:
        inside = {id(node) for node in match.nodes}
        inner = [name for node in match.nodes[1:] for name in node.outputs]
        return all(
            name not in self.returned and all(id(reader) in inside for reader in self.readers.get(name, ()))
            for name in inner
        )

    def _match(self, term: Term, value: str, found: Match) -> Iterator[Match]:
        if isinstance(term, str):
            if found.values.get(term, value) == value:
                yield Match(values={**found.values, term: value}, nodes=found.nodes)
        elif isinstance(term, Either):
            for option in term.terms:
                yield from self._match(option, value, found)
        elif isinstance(term, Call):
            node = self.producers.get(value)
            if node is not None and node.op.type == term.type and self._holds(term, node):
                yield from self._match_inputs(term, node, found)
        elif self._is_number(value, term):
            yield found

    def _holds(self, term: Call, node: OnnxNode) -> bool:
        if term.holds is not None:
            return term.holds(node, self.constants)
        return len(node.inputs) == len(term.terms)

    def _match_inputs(self, term: Call, node: OnnxNode, found: Match) -> Iterator[Match]:
        nodes = found.nodes if any(n is node for n in found.nodes) else (*found.nodes, node)
        orders = [term.terms]
        if term.type in _COMMUTATIVE:
            orders.append(term.terms[::-1])
        for terms in orders:
            matches = iter([Match(values=found.values, nodes=nodes)])
            for part, value in zip(terms, node.inputs, strict=False):
                matches = self._each(matches, part, value)
            yield from matches

    def _each(self, matches: Iterator[Match], term: Term, value: str) -> Iterator[Match]:
        for match in matches:
            yield from self._match(term, value, match)

    def _is_number(self, value: str, number: float) -> bool:
        array = self.constants.get(value)
        return array is not None and array.size == 1 and math.isclose(float(array.item()), number, rel_tol=1e-4)
