"""Leave in float what is faster in float on this machine, by measuring engines.

The engine's own clock proposes: groups of operations (all of a kind and size, or a part of the model) whose kernels
and conversions take longer in int8 than the float twin's. Whole engines decide: each proposal is built and timed in
turns with the engine that has everything in int8, the best ones together once more, and only what is still faster
then is kept.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx

from razordeploy.backends.base import Backend, Runner, TimedOp
from razordeploy.backends.harness import interleaved_latency, origins_of
from razordeploy.capture.graph import CapturedModel, module_path, shape_of
from razordeploy.deployment import Deployment, marked_once
from razordeploy.job import begin
from razordeploy.preparation import work_on
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.op_kinds import kind_of
from razordeploy.validation import of_batch

_PROPOSALS = 10
"""Groups that are built and timed by themselves, at most."""
_TOGETHER = 4
"""Groups that may go back to float together."""
_WORTH = 0.015
"""Share of the engine's time that a group must seem to lose to be tried."""
_FASTER = 0.98
"""Latency ratio that a placement must beat to be kept."""
_SECONDS = 0.4
"""Time of one engine in one comparison."""
_MOST_FLOAT = 0.9
"""Share of the planned operations that one group may have: an engine all in float is its float twin."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Operations that go back to float together."""

    name: str
    """What they have in common, for people: a part of the model, or a kind and a shape."""
    ops: frozenset[str]
    """Names of their graph nodes."""
    int8_ms: float
    """Time that the int8 engine's clock gives them, conversions included."""
    float_ms: float
    """The same in the float twin."""


@dataclass(kw_only=True)
class Placed:
    """What came of it."""

    deployment: Deployment
    draft: Draft
    entry: dict[str, Any] = field(default_factory=dict)
    """The report's ``placement``; empty where nothing was asked."""
    seconds: dict[str, float] = field(default_factory=dict)


def placed_by_cost(
    deployment: Deployment, backend: Backend, draft: Draft, head: tuple[torch.Tensor, ...], notes: list[str]
) -> Placed:
    """The draft with what is slower in int8 left in float, where recipe or backend ask for ``placement="measured"``.

    Args:
        deployment: of the run; what comes back is another one where the new placement needs another ONNX export.
        backend: builds, times and runs the engines.
        draft: what everything in int8 makes.
        head: a few calibration samples, ``(N, ...)`` tensors, for scales that only engines to be timed need.
        notes: gets a line where the backend's engines do not tell times.
    """
    if (deployment.job.quantize.placement or backend.spec.placement) != "measured":
        return Placed(deployment=deployment, draft=draft)
    if backend.profile is None or backend.absent() is not None:
        notes.append(f"{backend.name}: its engines do not tell times here: placement='measured' changes nothing")
        return Placed(deployment=deployment, draft=draft)
    start = time.perf_counter()
    begin(deployment.job, f"{backend.name}: time operations")
    with tempfile.TemporaryDirectory(dir=deployment.job.work_dir, prefix=".placement-") as folder:
        found = _Search(deployment, backend, draft, head, Path(folder)).run()
    return replace(found, seconds={"measure_placement": time.perf_counter() - start})


class _Search:
    def __init__(
        self, deployment: Deployment, backend: Backend, draft: Draft, head: tuple[torch.Tensor, ...], folder: Path
    ) -> None:
        self.deployment, self.backend, self.draft, self.folder = deployment, backend, draft, folder
        captured, job = draft.captured, deployment.job
        batch = job.deploy.batch_size if captured.dynamic_batch else captured.batch_size
        self.inputs = [of_batch(x, batch) for x in captured.example_inputs]
        self.head = head if captured.dynamic_batch else tuple(x[: captured.batch_size] for x in head)
        self.runners: dict[frozenset[str], Runner] = {}
        self.tried: dict[frozenset[str], dict[str, Any]] = {}

    def run(self) -> Placed:
        groups = self._groups()
        nothing = {"tried": [], "kept": [], "float": 0, "ratio": None}
        if not groups:
            return Placed(deployment=self.deployment, draft=self.draft, entry={"placement": nothing})
        single = self._ratios({g.ops: (g,) for g in groups})
        good = sorted((g for g in groups if single[g.ops] < _FASTER), key=lambda g: single[g.ops])
        choices: dict[frozenset[str], tuple[Group, ...]] = {g.ops: (g,) for g in good[:1]}
        if len(good) > 1:
            unions = [tuple(good[:n]) for n in range(2, min(len(good), _TOGETHER) + 1)]
            both = {frozenset().union(*(g.ops for g in parts)): parts for parts in unions}
            both = {ops: parts for ops, parts in both.items() if len(ops) <= _MOST_FLOAT * len(self._planned())}
            choices |= both
        best = self._confirmed(choices)
        record = {**nothing, "tried": list(self.tried.values())}
        if best is None:
            return Placed(deployment=self.deployment, draft=self.draft, entry={"placement": record})
        ops, ratio = best
        record |= {"kept": [g.name for g in choices[ops]], "float": len(ops), "ratio": ratio}
        work = work_on(self.deployment.job, self.deployment.captured, [])
        draft = self.draft.without(_reasons(choices[ops]), work.batches())
        deployment = self.deployment
        if not draft.own:
            plans = [self.draft.plan, draft.plan]
            deployment = replace(deployment, marked=marked_once(deployment.job, draft.captured, [self.backend], plans))
        return Placed(deployment=deployment, draft=draft, entry={"placement": record})

    def _planned(self) -> set[str]:
        return {op.node for op in self.draft.plan.ops if op.int8}

    # Proposals -------------------------------------------------------------------------------------------------

    def _groups(self) -> list[Group]:
        """The groups that seem to lose most in int8, most first."""
        base = self.folder / "int8"
        base.mkdir()
        files = self.backend.export(self.deployment.export_job(self.backend, self.draft, base))
        assert self.backend.profile is not None
        threads = self.deployment.job.threads
        engine, twin = (self.backend.profile(base, files, r, threads, self.inputs) for r in ("engine", "float"))
        self.runners[frozenset()] = self.backend.load(base, files, "engine", threads)
        planned = self._planned()
        int8_ms, float_ms = (times_by_node(self.draft.captured, planned, found) for found in (engine, twin))
        total = sum(t.ms for t in engine)
        groups = list(proposals(self.draft.captured, planned, int8_ms, float_ms))
        groups = [g for g in groups if g.int8_ms - g.float_ms > _WORTH * total]
        return sorted(groups, key=lambda g: g.float_ms - g.int8_ms)[:_PROPOSALS]

    # Engines ---------------------------------------------------------------------------------------------------

    def _ratios(self, wanted: Mapping[frozenset[str], tuple[Group, ...]]) -> dict[frozenset[str], float]:
        """Latency of the engines with these operations in float over that of the one with all in int8."""
        self._build({ops: parts for ops, parts in wanted.items() if ops not in self.runners})
        begin(self.deployment.job, f"{self.backend.name}: time {len(wanted)} placements")
        runners = {str(i): self.runners[ops] for i, ops in enumerate((frozenset(), *wanted))}
        times = interleaved_latency(runners, self.inputs, seconds=_SECONDS * len(runners))
        base = np.array(times["0"].samples_ms)
        found = {}
        for i, (ops, parts) in enumerate(wanted.items(), 1):
            # Calls of one round are neighbours in time: a slow moment of the machine is in both.
            found[ops] = float(np.median(np.array(times[str(i)].samples_ms) / base))
            name = " + ".join(g.name for g in parts)
            self.tried[ops] = {"group": name, "ops": len(ops), "ratio": found[ops]}
        return found

    def _build(self, wanted: Mapping[frozenset[str], tuple[Group, ...]]) -> None:
        drafts = {ops: self.draft.without(_reasons(parts), [self.head]) for ops, parts in wanted.items()}
        deployment, job = self.deployment, self.deployment.job
        if drafts and not self.draft.own:
            plans = [d.plan for d in drafts.values()]
            deployment = replace(deployment, marked=marked_once(job, self.draft.captured, [self.backend], plans))
        for ops, draft in drafts.items():
            begin(job, f"{self.backend.name}: build placement {len(self.runners)}")
            folder = self.folder / str(len(self.runners))
            folder.mkdir()
            files = self.backend.export(deployment.export_job(self.backend, draft, folder, with_twin=False))
            self.runners[ops] = self.backend.load(folder, files, "engine", job.threads)

    def _confirmed(self, choices: Mapping[frozenset[str], tuple[Group, ...]]) -> tuple[frozenset[str], float] | None:
        """The fastest of ``choices`` and its latency ratio in a comparison that did not choose it; None: none is."""
        if not choices:
            return None
        ratios = self._ratios(choices)
        best = min(ratios, key=lambda ops: ratios[ops])
        again = self._ratios({best: choices[best]})[best]
        return (best, again) if again < _FASTER else None


def _reasons(groups: Iterable[Group]) -> dict[str, str]:
    return {
        op: f"float: faster on this machine: '{g.name}' takes {g.float_ms:.3g} ms in float, {g.int8_ms:.3g} ms in int8"
        for g in groups
        for op in sorted(g.ops)
    }


def times_by_node(captured: CapturedModel, planned: set[str], timed: Sequence[TimedOp]) -> dict[str, float]:
    """Milliseconds of every graph node, by the names of the engine's operations.

    A kernel that several operations run in is counted for the first of them that is planned, or that the last of them
    reads; a conversion for the operation whose result it converts.
    """
    nodes = {n.name: n for n in captured.graph.nodes}
    found: dict[str, float] = {}
    for item in timed:
        mine = [name for o in origins_of(item.op) if (name := o.partition(".")[0]) in nodes]
        owner = next((o for o in mine if o in planned), mine[0] if mine else None)
        if owner is not None:
            found[owner] = found.get(owner, 0.0) + item.ms
    for name in set(found) - planned:
        source = nodes[name].args[0] if nodes[name].args else None
        if isinstance(source, fx.Node) and source.name in planned and source.name not in found:
            found[source.name] = found.pop(name)  # a fused kernel under the name of the activation that ends it
    return found


def proposals(
    captured: CapturedModel, planned: set[str], int8_ms: Mapping[str, float], float_ms: Mapping[str, float]
) -> Iterator[Group]:
    """Groups of planned operations: those of a kind, of a kind and size, and of each part of the model.

    A part's time is that of all its operations, also of those that are float anyway: conversions around them count.
    """
    sets: dict[str, tuple[set[str], set[str]]] = {}
    for node in captured.graph.nodes:
        kind = kind_of(node)
        for name in [*_kinds(node, kind, planned), *_parts(node)]:
            timed, ops = sets.setdefault(name, (set(), set()))
            timed.add(node.name)
            if node.name in planned:
                ops.add(node.name)
    seen: set[frozenset[str]] = set()
    for name, (timed, ops) in sets.items():
        key = frozenset(ops)
        if not ops or key in seen or len(ops) > _MOST_FLOAT * len(planned):
            continue
        seen.add(key)
        times = [sum(ms.get(n, 0.0) for n in timed) for ms in (int8_ms, float_ms)]
        yield Group(name=name, ops=key, int8_ms=times[0], float_ms=times[1])


def _kinds(node: fx.Node, kind: str | None, planned: set[str]) -> list[str]:
    if kind is None or node.name not in planned:
        return []
    weight = node.args[1] if len(node.args) > 1 else None
    sizes = [shape_of(v) for v in (weight, node) if isinstance(v, fx.Node)]
    return [kind, f"{kind} " + " -> ".join("x".join(str(n) for n in s[-3:]) for s in sizes if s is not None)]


def _parts(node: fx.Node) -> list[str]:
    path = module_path(node).split(".")
    return [".".join(path[: i + 1]) for i in range(len(path))] if path != [""] else []
