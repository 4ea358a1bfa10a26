"""Recovery without labels on the families of mmcls whose plain int8 engine is under the cosine asked for.

    python tools/bench/zoo_recovery.py [--families mobilenet_v2,hrnet] [--backend openvino] [--limit-s 900] [--json F]

Weights are random and norms fitted, as in ``zoo.py``. One row per family and backend: cosine of the plain and of the
recovered engine to the float model on images that calibration held, int8 operations of both, latency of both over that
of the float engine (interleaved, batch 1, processor time), and the processor seconds that quantization took without
and with recovery. Families that the JSON file has are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zoo

UNDER = (
    "mobilenet_v2,efficientnet,shufflenet_v2,hrnet,res2net,inception_v3,resnext,wrn,resnest,repmlp,vig,convmixer,"
    "efficientnet_v2"
)
"""Families of which an engine is under 0.99."""


def run(family: str, backend: str, samples: int) -> dict[str, Any]:
    """Quantize one family without and with recovery, in this process."""
    import razordeploy as rd
    from razordeploy.backends.harness import interleaved_latency

    module, images = zoo.build(family)
    batches = [x for _ in range(-(-samples // len(images))) for x in images.split(4)][: samples // 4]
    row: dict[str, Any] = {"family": family, "backend": backend}
    runners: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        with torch.no_grad():
            expected = zoo.flat(module(images[:8]))
        for name, recover in (("plain", False), ("recovered", True)):
            out = Path(folder) / name
            start = time.process_time()
            made = rd.ptq(module, batches, example_inputs=(images[:2],), backend=backend, out_dir=out, recover=recover)
            row[f"{name}_s"] = time.process_time() - start
            engine = rd.Engine(made, threads=1)
            coverage = engine.coverage()
            row[f"{name}_int8"], row[f"{name}_planned"] = coverage.int8, coverage.planned
            size = engine.inputs[0].shape[0]
            found = [zoo.flat(engine.runner(part.numpy())) for part in images[:8].split(size or 8)]
            row[f"{name}_cosine"] = zoo.cosine(np.concatenate(found), expected, name)
            runners[name] = zoo.OnCPU(engine.runner)
        row["recovery"] = json.loads((out / "report.json").read_text())["backends"][backend]["recovery"]
        runners["float"] = zoo.OnCPU(rd.Engine(made, "float", threads=1).runner)
        times = interleaved_latency(runners, [images[: size or 1].numpy()], seconds=6.0)
        for name in ("plain", "recovered"):
            row[f"{name}/float"] = times[name].p50_ms / times["float"].p50_ms
    return row


def main() -> None:
    """Run every family in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=UNDER)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--limit-s", type=int, default=900)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run(options.child, options.backend, options.samples)))
        return
    rows: list[dict[str, Any]] = []
    if options.json and options.json.exists():
        rows = [row for row in json.loads(options.json.read_text()) if "error" not in row]
    done = {(row["family"], row["backend"]) for row in rows}
    print(f"{'family':18s}{'backend':13s}{'cosine':>16s}{'int8 ops':>13s}{'of float':>14s}{'seconds':>14s}  recovery")
    for backend in options.backend.split(","):
        for family in (f for f in options.families.split(",") if (f, backend) not in done):
            command = [sys.executable, __file__, "--child", family, "--backend", backend]
            rows.append(child([*command, "--samples", str(options.samples)], options.limit_s, family, backend))
            print(text_of(rows[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1))


def child(command: list[str], limit_s: int, family: str, backend: str) -> dict[str, Any]:
    """One family's row, or why there is none."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"family": family, "backend": backend, "error": f"over the limit of {limit_s} s"}
    if done.returncode:
        return {"family": family, "backend": backend, "error": done.stderr.strip().splitlines()[-1][:150]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def text_of(row: dict[str, Any]) -> str:
    """One line of the table."""
    start = f"{row['family']:18s}{row['backend']:13s}"
    if "error" in row:
        return f"{start}FAILED  {row['error']}"
    cosines, ratios, seconds = (
        f"{row[f'plain{key}']:.{digits}f} -> {row[f'recovered{key}']:.{digits}f}"
        for key, digits in (("_cosine", 4), ("/float", 2), ("_s", 0))
    )
    ops = f"{row['plain_int8']} -> {row['recovered_int8']}"
    found = row["recovery"]
    kept = ", ".join(step["name"] for step in found["steps"] if step["kept"]) or "nothing kept"
    return f"{start}{cosines:>16s}{ops:>13s}{ratios:>14s}{seconds:>14s}  {'' if found['met'] else 'not met: '}{kept}"


if __name__ == "__main__":
    main()
