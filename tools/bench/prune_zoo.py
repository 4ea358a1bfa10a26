"""Every model family of mmcls 1.0.0rc6 at half width: parameters left, the form of the result, and where time goes.

    python tools/bench/prune_zoo.py [--families resnet,swin] [--choice 0.5] [--limit-s 300] [--json F]

Weights are random, batch-norm statistics are fitted to the data (``zoo.py``). Columns: units pruned of those found;
parameters left; how the result was made (``module``: the original's own classes; ``graph``: the captured graph); the
largest change of the outputs when all units are permuted, relative to the largest output, where an error of the tracer
would show (in float64 where float32 says more than 1e-4); CPU seconds of the capture by torch.export, of tracing and
grouping, and of slicing with its check.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from zoo import CONFIGS, build

LIMIT = 0.45
"""Largest share of the parameters that half the width may leave."""


def run(family: str, choice: float) -> dict[str, Any]:
    """Prune one family, in this process."""
    from razordeploy.capture.export import export_program
    from razordeploy.capture.normalize import plain_graph
    from razordeploy.subnet.channel_graph import ChannelGraph, state_names
    from razordeploy.subnet.slice import slice_model
    from razordeploy.subnet.tracer.trace import trace

    parts = ("forward", "export", "trace", "slice")
    module, images = build(family)
    x = images[:2]
    clock = [time.process_time()]
    with torch.no_grad():
        expected = module(x)
    clock.append(time.process_time())
    program = export_program(module, (x,), dynamic_batch=False).program
    clock.append(time.process_time())
    graph = ChannelGraph(trace(plain_graph(program), state_names(module)))
    clock.append(time.process_time())
    made = slice_model(module, graph, choice, example_inputs=(x,))
    clock.append(time.process_time())
    with torch.no_grad():
        found = made.module(x)
    shapes = [[tuple(t.shape) for t in leaves(out)] for out in (found, expected)]
    count = [sum(p.numel() for p in m.parameters()) for m in (made.module, module)]
    return {
        "family": family,
        "units": len(made.selection.widths),
        "found": len(graph.units),
        "left": count[0] / count[1],
        "form": made.form,
        "why": made.why,
        "permuted": permuted(module, graph, x, expected),
        "right_shape": shapes[0] == shapes[1],
        "finite": all(bool(t.isfinite().all()) for t in leaves(found)),
        "seconds": dict(zip(parts, map(float.__sub__, clock[1:], clock), strict=False)),
        "fixed": fixed_share(module, graph),
        "frozen": {unit.name: unit.reason for unit in graph.units.values() if unit.reason},
    }


def fixed_share(module: torch.nn.Module, graph: Any) -> float:
    """Parameters of which no dimension is channels, as a share of all: no choice of widths leaves fewer."""
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    return sum(sizes.get(name, 0) for name in graph.fixed) / sum(sizes.values())


def leaves(outputs: Any) -> list[torch.Tensor]:
    """Tensors of a nest of outputs."""
    return [t for t in torch.utils._pytree.tree_leaves(outputs) if isinstance(t, torch.Tensor)]


def permuted(module: torch.nn.Module, graph: Any, x: torch.Tensor, expected: Any) -> float:
    """The gap in float32; in float64 where that is large, because rounding decides which neighbours a graph has."""
    from razordeploy.subnet.channel_graph import channel_graph

    gap = permuted_gap(module, graph, x, expected)
    if gap < 1e-4:
        return gap
    module, x = module.double(), x.double()
    with torch.no_grad():
        expected = module(x)
    return permuted_gap(module, channel_graph(module, x), x, expected)


def permuted_gap(module: torch.nn.Module, graph: Any, x: torch.Tensor, expected: Any) -> float:
    """How much the outputs change when every unit is permuted within what a shuffle allows."""
    from razordeploy.subnet.channel_graph import Selection
    from razordeploy.subnet.slice_constants import patches
    from razordeploy.subnet.slice_graph import sliced_graph
    from razordeploy.subnet.slice_state import named_tensors, sliced_state
    from razordeploy.subnet.tracer.layout import Kept

    generator = torch.Generator().manual_seed(0)

    def pick(leaf: Any, width: int, cuts: Any) -> torch.Tensor:
        pairs = zip(cuts, cuts[1:], strict=False)
        return torch.cat([torch.randperm(b - a, generator=generator) + a for (a, _), (b, _) in pairs])

    whole = Selection(widths={name: unit.channels for name, unit in graph.prunable.items()}, kept={})
    kept = Kept(graph.leaf_widths(whole), graph.parts, pick)
    state = sliced_state(graph.trace, kept, named_tensors(module))
    with torch.no_grad():
        found = sliced_graph(module, graph.trace, patches(graph.trace, kept), state).eval()(x)
    pairs = zip(leaves(found), leaves(expected), strict=True)
    return max(((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item() for a, b in pairs)


def main() -> None:
    """Run every family in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(CONFIGS))
    parser.add_argument("--choice", type=float, default=0.5)
    parser.add_argument("--limit-s", type=int, default=300)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        warnings.simplefilter("ignore")
        print(json.dumps(run(options.child, options.choice)))
        return
    rows: list[dict[str, Any]] = []
    times = "".join(f"{name:>8s}" for name in ("export", "trace", "slice"))
    print(f"{'family':20s}{'units':>10s}{'left':>8s}  {'form':8s}{'permuted':>10s}{times}")
    for family in options.families.split(","):
        row = child(family, options)
        rows.append(row)
        print(line(row), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    print(f"{sum(map(passed, rows))} of {len(rows)} families pass")


def child(family: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row, or the error."""
    command = [sys.executable, __file__, "--child", family, "--choice", str(options.choice)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"family": family, "error": f"over the limit of {options.limit_s} s"}
    if done.returncode:
        return {"family": family, "error": done.stderr.strip().splitlines()[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def passed(row: dict[str, Any]) -> bool:
    """Half the width, a right forward, and nothing that a permutation changes."""
    if "error" in row:
        return False
    return row["left"] < LIMIT and row["finite"] and row["right_shape"] and row["permuted"] < 1e-3


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    if "error" in row:
        return f"{row['family']:20s}FAILED  {row['error']}"
    units, seconds = f"{row['units']}/{row['found']}", row["seconds"]
    times = "".join(f"{seconds[k]:8.2f}" for k in ("export", "trace", "slice"))
    mark = "" if passed(row) else "  FAILS"
    return f"{row['family']:20s}{units:>10s}{row['left']:8.3f}  {row['form']:8s}{row['permuted']:10.1e}{times}{mark}"


if __name__ == "__main__":
    main()
