"""Seconds and peak memory of quantizing networks for OpenVINO: ours against NNCF, each in a process of its own.

    python tools/bench/quantize_time.py [--families resnet,swin] [--samples 64] [--rounds 1] [--json F]

Both start from the same nn.Module and the same images in memory and end with the IR on disk, each as its user calls it:
ours with one ``rd.ptq``, which also validates the engine and writes the report; NNCF with ``openvino.convert_model``,
``nncf.quantize`` and ``openvino.save_model``, its preset and batch of one; where it fails on the converted module
(marked with a star), the time is that of the way round, through ``torch.onnx.export``. The tools take turns. Each
imports what it needs on the clock, but torch, which is there with the model. CPU seconds stand beside the wall time:
they vary less on a machine that does other work.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from zoo import CONFIGS, build

OURS_BATCH = 4
TOOLS = ("ours", "nncf")
MEASURES = ("seconds", "cpu_seconds", "peak_bytes")


def child(tool: str, family: str, samples: int) -> dict[str, Any]:
    """Quantize one family with one tool in this process."""
    run = {"ours": ours, "nncf": nncf}[tool]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        found = run(family, samples, Path(folder))
    return {**found, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def ours(family: str, samples: int, folder: Path) -> dict[str, Any]:
    """``rd.ptq`` on the module; also the seconds of its stages."""
    module, found = build(family)
    images = found.repeat(-(-samples // len(found)), *[1] * (found.dim() - 1))[:samples]
    with _clock() as clock:
        import razordeploy as rd

        made = rd.ptq(
            module, images.split(OURS_BATCH), example_inputs=(images[:2],), backend="openvino", out_dir=folder
        )
    report = json.loads((made.path.parent / "report.json").read_text())
    return {**clock, "stages": report["backends"]["openvino"]["seconds"]}


def nncf(family: str, samples: int, folder: Path) -> dict[str, Any]:
    """Convert, quantize with the default preset, save."""
    from rivals import nncf_openvino, nncf_quantize, quiet

    module, found = build(family)
    images = found.repeat(-(-samples // len(found)), *[1] * (found.dim() - 1))[:samples]
    data = [image.numpy() for image in images.split(1)]
    stages = {}
    try:
        with quiet(), _clock() as clock:
            import nncf as _  # noqa: F401
            import openvino as ov

            model = ov.convert_model(module, example_input=images[:1], input=[-1, *images.shape[1:]])
            stages["convert"] = time.perf_counter() - clock["start"]
            nncf_quantize(model, data, folder)
    except Exception:  # whatever it is, it is not ours to mend
        with _clock() as clock:
            nncf_openvino(module, images.shape[1:], data, folder)
        stages["onnx"] = clock["seconds"]
    return {**clock, "stages": stages}


@contextlib.contextmanager
def _clock() -> Any:
    clock = {"start": time.perf_counter()}
    cpu = time.process_time()
    yield clock
    clock["seconds"] = time.perf_counter() - clock.pop("start")
    clock["cpu_seconds"] = time.process_time() - cpu


def _measure(tool: str, family: str, samples: int, limit_s: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", tool, "--families", family, "--samples", str(samples)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        return {"error": f"over the limit of {limit_s} s"}
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:150]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _compare(family: str, options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in TOOLS}
    for _ in range(options.rounds):
        for tool in TOOLS:
            runs[tool].append(_measure(tool, family, options.samples, options.limit_s))
    failed = [f"{tool}: {run['error']}" for tool in TOOLS for run in runs[tool] if "error" in run]
    row: dict[str, Any] = {"family": family}
    if failed:
        return {**row, "error": failed[0]}
    for tool in TOOLS:
        row[tool] = {key: float(np.median([run[key] for run in runs[tool]])) for key in MEASURES}
        stages = runs[tool][0]["stages"]
        row[tool]["stages"] = {s: float(np.median([run["stages"][s] for run in runs[tool]])) for s in stages}
    return {**row, **{f"{key} ratio": row["ours"][key] / row["nncf"][key] for key in MEASURES}}


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['family']:18s}FAILED  {row['error']}"
    times = "".join(f"{row[tool][key]:8.1f}" for tool in TOOLS for key in ("seconds", "cpu_seconds"))
    ratios = "".join(f"{row[f'{key} ratio']:8.2f}" for key in MEASURES)
    stages = " ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["ours"]["stages"].items())
    star = "*" if "onnx" in row["nncf"]["stages"] else ""
    return f"{row['family'] + star:18s}{times}{ratios}  {stages}"


def main() -> None:
    """Print a line a family and the geometric means of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(CONFIGS))
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit-s", type=int, default=600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=TOOLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.families, options.samples)))
        return
    head = "".join(f"{text:>8s}" for text in ("ours s", "cpu", "nncf s", "cpu", "wall", "cpu", "memory"))
    print(f"{'family':18s}{head}  stages of ours, s")
    rows = []
    for family in options.families.split(","):
        rows.append(_compare(family, options))
        print(_line(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    good = [row for row in rows if "error" not in row]
    if good:
        means = (float(np.exp(np.mean([np.log(row[f"{key} ratio"]) for row in good]))) for key in MEASURES)
        print(f"{'geometric mean':18s}{'':32s}" + "".join(f"{mean:8.2f}" for mean in means))


if __name__ == "__main__":
    main()
