"""Decide, from a backend's rules alone, which operations run in int8 and which values are put on a grid.

Three steps, each a pure function of the graph and the rules:

1. ``choose_ops``: operations with a constant weight start int8 regions; joining operations (element-wise, pooling)
   belong to a region when int8 operations lie on both sides of them.
2. ``request``: every int8 operation asks for its inputs on a grid; a request climbs through operations that only pass
   a grid on, up to the value where the grid begins. It stops at a part (slice, split) of what a float operation wrote:
   the rest, a class token say, would have its range on the grid too; and at a concatenation of what float operations
   wrote, which needs one pair instead of several.
3. ``points``: one quantize-dequantize pair for every value and grid; values that must agree share a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from torch import fx

from razordeploy.capture.graph import CapturedModel, flat_nodes, is_float, module_path
from razordeploy.config.backend_spec import BackendSpec, OpRule
from razordeploy.config.scheme import QScheme
from razordeploy.quantization.grid_moves import GridMoves, is_constant, is_part, source_of
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.quantization.plan import ObserverSpec, PlannedOp, QuantPlan, QuantPoint
from razordeploy.quantization.sums import all_run_before, is_plain_sum


@dataclass(frozen=True, kw_only=True)
class OpSettings:
    """What backend defaults and recipe say about one operation."""

    activation: QScheme
    weight: QScheme
    activation_observer: ObserverSpec
    weight_observer: ObserverSpec
    skip: str | None = None
    """Why the operation stays float; None when it may be quantized."""
    by_input: Mapping[str, QScheme] = field(default_factory=dict)
    """Name of a node that the operation reads -> grid of that value, where it is another one."""

    def of(self, source: fx.Node) -> OpSettings:
        """The settings for the value of ``source`` alone."""
        return replace(self, activation=self.by_input.get(source.name, self.activation))

    def with_floor(self, floor: float | None) -> OpSettings:
        """The settings with inputs on a grid that begins at ``floor``; without one these."""
        return self if floor is None else replace(self, activation=replace(self.activation, floor=floor))


Settings = Callable[[fx.Node, str, OpRule], OpSettings]
"""``(node, kind, rule) -> OpSettings``."""


def place(captured: CapturedModel, spec: BackendSpec, settings: Settings) -> QuantPlan:
    """Plan where ``spec``'s engine quantizes the captured graph."""
    return _Placement(captured, spec, settings).plan()


@dataclass
class _Value:
    """One value on one grid, while the plan is being made."""

    node: fx.Node
    scheme: QScheme
    observer: ObserverSpec
    users: set[str] = field(default_factory=set)
    written: bool = True
    """False: the value lies on its input's grid and the backend wants no pair of its own here."""


class _Placement:
    def __init__(self, captured: CapturedModel, spec: BackendSpec, settings: Settings) -> None:
        self.spec = spec
        self.nodes = list(captured.graph.nodes)
        self.kinds = {n: kind_of(n) for n in self.nodes}
        self.rules = {n: spec.ops[k] for n, k in self.kinds.items() if k is not None and k in spec.ops}
        self.settings = {n: settings(n, self.kinds[n] or "", rule) for n, rule in self.rules.items()}
        self.values: dict[tuple[fx.Node, QScheme], _Value] = {}
        self.parent: dict[tuple[fx.Node, QScheme], tuple[fx.Node, QScheme]] = {}
        self.moves = GridMoves(spec, self.kinds)

    def plan(self) -> QuantPlan:
        reasons = self._exclusions()
        chosen = self._choose(reasons)
        requests = [
            (v, n, self.settings[n].of(v).with_floor(self.rules[n].floor))
            for n in chosen
            for v in self._quantized_inputs(n, set(chosen))
        ]
        for value, reader, wanted in sorted(requests, key=lambda request: not request[2].activation.symmetric):
            self._request(value, reader, self._agreed(value, wanted))
        if self.spec.share_with_float:
            self._share(chosen)
        if self.spec.pairs_at_readers:
            self._unite_relatives()
        points = [*self._activation_points(), *self._weight_points(chosen)]
        return QuantPlan(
            backend=self.spec.name, points=tuple(points), ops=tuple(self._ops(chosen, reasons)), bias=self.spec.bias
        )

    # Which operations ------------------------------------------------------------------------------------------

    def _exclusions(self) -> dict[fx.Node, str]:
        """Why each operation that a rule exists for stays float, as far as the operation itself tells."""
        reasons: dict[fx.Node, str] = {}
        for node, rule in self.rules.items():
            skip = self.settings[node].skip
            if skip is not None:
                reasons[node] = skip
            elif rule.weight is not None and not is_constant(node.args[rule.weight]):
                reasons[node] = "its weight is computed at run time"
            elif not is_float(node):
                reasons[node] = "not a floating-point tensor"
            elif not rule.constants and len(self._activations(node)) < len(rule.inputs):
                reasons[node] = "one operand is a constant"
            elif rule.floor is not None and not all(self._may_begin_at_floor(v, node) for v in self._activations(node)):
                reasons[node] = (
                    f"the grid of its input cannot begin at {rule.floor:g}: it is symmetric, or others read it"
                )
        return reasons

    def _may_begin_at_floor(self, value: fx.Node, reader: fx.Node) -> bool:
        while len(value.users) == 1 and self.moves.keeps_grid(value):
            value = value.args[0]  # type: ignore[assignment]
        return len(value.users) == 1 and not self.settings[reader].of(value).activation.symmetric

    def _choose(self, reasons: dict[fx.Node, str]) -> list[fx.Node]:
        able = [n for n in self.nodes if n in self.rules and n not in reasons]
        chosen = set(able)
        changed = True
        while changed:
            changed = False
            self.moves.beginnings = self._float_beginnings(chosen)
            for node in able:
                why = self._not_joining(node, chosen) if node in chosen and self.rules[node].join else None
                if why is not None:
                    chosen.discard(node)
                    reasons[node] = why
                    changed = True
        return [n for n in able if n in chosen]

    def _float_beginnings(self, chosen: set[fx.Node]) -> set[fx.Node]:
        """Where grids begin: slices, concatenations and some pools of what no int8 kernel writes, and moves of these.

        OpenVINO takes a pair on such a concatenation apart, and from behind it the parts' zero points reach no kernel.
        """
        found, written_by_int8 = set[fx.Node](), set[fx.Node]()
        for node in self.nodes:
            if self.moves.keeps_grid(node):
                source = source_of(node)
                int8 = source in written_by_int8
                begins = is_part(node) or self.kinds[node] in self.spec.float_first
                if not int8 and (begins or (source in found and self.moves.unifies(source))):
                    found.add(node)
            elif self.moves.unifies(node):
                parts = list(flat_nodes(node.args[0]))
                int8 = written_by_int8.issuperset(parts)
                if written_by_int8.isdisjoint(parts) or not self.moves.along_channels(node):
                    int8 = False
                    found.add(node)
            else:
                int8 = self._base(node) in chosen
            if int8:
                written_by_int8.add(node)
        return found

    def _not_joining(self, node: fx.Node, chosen: set[fx.Node]) -> str | None:
        if self.rules[node].only_in_place and self._host(node, chosen) is None:
            return "no int8 convolution right before it whose kernel could add"
        if not self._joins(node, chosen):
            return "no int8 operation on both sides of it: quantizing it would only add conversions"
        return None

    def _joins(self, node: fx.Node, chosen: set[fx.Node]) -> bool:
        sources = self._activations(node)
        feeds = any(c in chosen for c in self._consumers(node)) or self._adds_for_free(node, chosen)
        return feeds and all(self._is_int8_source(v, node, chosen) for v in sources)

    def _adds_for_free(self, node: fx.Node, chosen: set[fx.Node]) -> bool:
        """A kernel that adds in place reads the other operand as the int8 values that another kernel needs anyway."""
        others = self._quantized_inputs(node, chosen)
        if not others or len(others) == len(self._activations(node)):
            return False
        return all(self._is_read_as_int8(root, node, chosen) for v in others for root in self.moves.roots(v))

    def _is_read_as_int8(self, root: fx.Node, reader: fx.Node, chosen: set[fx.Node]) -> bool:
        return any(c in chosen and c is not reader and not self.rules[c].join for c in self.moves.readers(root))

    def _is_int8_source(self, value: fx.Node, reader: fx.Node, chosen: set[fx.Node]) -> bool:
        roots = list(self.moves.roots(value))
        return all(self._base(r) in chosen or self._is_read_as_int8(r, reader, chosen) for r in roots)

    def _consumers(self, node: fx.Node) -> Iterator[fx.Node]:
        """Operations that read ``node`` directly or through fused activations and grid-passing operations."""
        stack, seen = list(node.users), set()
        while stack:
            user = stack.pop()
            if user in seen:
                continue
            seen.add(user)
            if self._is_fused(user) or self.moves.passes(user) or self.moves.unifies(user):
                stack.extend(user.users)
            else:
                yield user

    def _base(self, value: fx.Node) -> fx.Node:
        """The operation whose kernel writes ``value``: looks through fused activations."""
        while self._is_fused(value) and isinstance(value.args[0], fx.Node):
            value = value.args[0]
        return value

    def _is_fused(self, node: fx.Node) -> bool:
        """Tell whether ``node`` runs inside the kernel of the operation before it."""
        kind, source = self.kinds.get(node), node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or len(source.users) != 1:
            return False
        if kind in self.spec.fused_behind_layers:
            return source in self.rules and self.rules[source].weight is not None
        return kind in self.spec.fused_activations and (source in self.rules or self._is_fused(source))

    def _activations(self, node: fx.Node) -> list[fx.Node]:
        """Float activations among the inputs that the rule names."""
        found: list[fx.Node] = []
        for position in self.rules[node].inputs:
            if position < len(node.args):
                found += [n for n in flat_nodes(node.args[position]) if is_float(n) and not is_constant(n)]
        return found

    def _quantized_inputs(self, node: fx.Node, chosen: set[fx.Node]) -> list[fx.Node]:
        """Inputs that go on a grid: all, or all but the one that the kernel before ``node`` adds the others to."""
        host = self._host(node, chosen)
        return [s for s in self._activations(node) if s is not host]

    def _host(self, node: fx.Node, chosen: set[fx.Node]) -> fx.Node | None:
        """The int8 operation whose kernel can add ``node``'s other input to its own result; of two the later."""
        sources = self._activations(node)
        if not self.rules[node].sum_in_place or len(sources) != 2 or not is_plain_sum(node):
            return None
        able = [s for s in sources if self._adds(s, chosen)]
        if self.rules[node].only_in_place:
            able = [s for s in able if self._may_take(sources[s is sources[0]], node, s, chosen)]
        return max(able, key=self.nodes.index, default=None)

    def _adds(self, node: fx.Node, chosen: set[fx.Node]) -> bool:
        return node in chosen and self.rules[node].weight is not None and self.rules[node].adds and len(node.users) == 1

    def _may_take(self, value: fx.Node, node: fx.Node, host: fx.Node, chosen: set[fx.Node]) -> bool:
        """Tell whether nobody needs the integers of ``value`` once ``host`` has written the sum over them."""
        int8 = {u for u in value.users if u in chosen or self.moves.passes(u) or self.moves.unifies(u)}
        return value is not host.args[0] and all_run_before(int8 - {node, host}, host)

    # Which values ----------------------------------------------------------------------------------------------

    def _request(self, value: fx.Node, reader: fx.Node, wanted: OpSettings) -> None:
        """Put ``value`` on a grid for ``reader``; climbs to where that grid begins."""
        key = (value, wanted.activation)
        record = self.values.get(key)
        if record is not None and reader.name in record.users:
            return
        if record is None:
            record = self.values[key] = _Value(value, wanted.activation, wanted.activation_observer)
            self.parent[key] = key
        record.users.add(reader.name)
        if self.spec.pairs_at_readers:
            return
        for source, below in self.moves.sources(value):
            record.written = self.spec.requantize_same_grid
            self._request(source, below, wanted)
            self._unite(key, (source, wanted.activation))

    def _agreed(self, value: fx.Node, wanted: OpSettings) -> OpSettings:
        """``wanted``, on the symmetric grid that an operation on the way to ``value`` passes on: it passes on one."""
        if self.spec.pairs_at_readers or wanted.activation.symmetric:
            return wanted
        for source, below in self.moves.sources(value):
            for (node, scheme), record in self.values.items():
                if node is source and scheme.symmetric and below.name in record.users:
                    return replace(wanted, activation=scheme)
            found = self._agreed(source, wanted)
            if found is not wanted:
                return found
        return wanted

    def _unite_relatives(self) -> None:
        """Give one grid to values that the engine would move to one place: copies of one value, parts of one whole."""
        for key in list(self.values):
            for root in self.moves.starts(key[0]):
                self.parent.setdefault((root, key[1]), (root, key[1]))
                self._unite(key, (root, key[1]))

    def _share(self, chosen: list[fx.Node]) -> None:
        """Quantize the outputs of kernels that need it, for every consumer."""
        for node in chosen:
            if not self.rules[node].output:
                continue
            end = node
            while len(end.users) == 1 and self._is_fused(next(iter(end.users))):
                end = next(iter(end.users))
            settings = self.settings[node]
            wanted = [key for key in self.values if key[0] is end and key[1].floor is not None]
            key = wanted[0] if wanted else (end, settings.activation)
            if key not in self.values:
                self.values[key] = _Value(end, settings.activation, settings.activation_observer)
                self.parent[key] = key
            self.values[key].users = {u.name for u in end.users}
        for (node, _), record in self.values.items():
            if record.written and self.moves.passes(node):
                record.users = {u.name for u in node.users}

    def _find(self, key: tuple[fx.Node, QScheme]) -> tuple[fx.Node, QScheme]:
        while self.parent[key] != key:
            key = self.parent[key]
        return key

    def _unite(self, child: tuple[fx.Node, QScheme], root: tuple[fx.Node, QScheme]) -> None:
        self.parent[self._find(child)] = self._find(root)

    # The plan --------------------------------------------------------------------------------------------------

    def _activation_points(self) -> Iterator[QuantPoint]:
        for key in sorted(self.values, key=lambda k: self.nodes.index(k[0])):
            record = self.values[key]
            if not record.written:
                continue
            root, scheme = self._find(key)
            suffix = "" if scheme == self.spec.activation.scheme() else f"@{scheme.tag}"
            yield QuantPoint(
                node=record.node.name,
                users=tuple(sorted(record.users)),
                kind="activation",
                scheme=scheme,
                group=f"{root.name}{suffix}",
                observer=record.observer,
                observed=self.spec.pairs_at_readers or not self.moves.passes(record.node) or root is record.node,
            )

    def _weight_points(self, chosen: list[fx.Node]) -> Iterator[QuantPoint]:
        readers: dict[tuple[fx.Node, QScheme], list[fx.Node]] = {}
        for node in chosen:
            position = self.rules[node].weight
            if position is not None:
                weight = node.args[position]
                assert isinstance(weight, fx.Node)
                readers.setdefault((weight, self.settings[node].weight), []).append(node)
        for (weight, scheme), nodes in readers.items():
            yield QuantPoint(
                node=weight.name,
                users=tuple(n.name for n in nodes),
                kind="weight",
                scheme=scheme,
                group=f"{weight.name}@{scheme.tag}",
                observer=self.settings[nodes[0]].weight_observer,
            )

    def _ops(self, chosen: list[fx.Node], reasons: dict[fx.Node, str]) -> Iterator[PlannedOp]:
        taken = set(chosen)
        for node in self.nodes:
            kind = self.kinds[node]
            if kind is None or not is_float(node) or self.moves.keeps_grid(node) or self._is_fused(node):
                continue
            if node not in taken and kind in self.spec.unify:
                continue
            why = None
            if node not in taken:
                why = reasons.get(node) or self.spec.float_reasons.get(kind) or self._default_reason(kind)
            yield PlannedOp(node=node.name, kind=kind, module=module_path(node), int8=node in taken, reason=why)

    def _default_reason(self, kind: str) -> str:
        if kind in self.spec.fused_activations:
            return "it runs inside the operation before it, which stays float or has other readers"
        return "no int8 rule in the backend's YAML"
