"""Seconds and peak memory of quantizing networks for OpenVINO: ours against NNCF, each in a process of its own.

    python tools/bench/quantize_time.py [--families resnet,swin] [--samples 64] [--threads 1] [--rounds 1] [--json F]

Both start from the same nn.Module and the same images in memory and end with the int8 IR on disk, each as its user
calls it: ours with one ``rd.ptq``, NNCF with ``openvino.convert_model``, ``nncf.quantize`` and ``openvino.save_model``,
its preset and batch of one; where it fails on the converted module (marked with a star), the time is that of the way
round, through ``torch.onnx.export``. Each imports what it needs on the clock, but torch, which is there with the model.

Holding the engine against its simulation and the float model is not quantization: NNCF does nothing of the kind, and
the time that ``rd.ptq`` spends on it stands in a column of its own; ``all`` is the ratio with it. The report is in.

The tools take turns, each confined to as many CPUs as it has threads. CPU seconds stand beside the wall time: they
vary less on a machine that does other work. ``--json`` keeps what was measured; families in it are not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from zoo import CONFIGS, build

OURS_BATCH = 4
TOOLS = ("ours", "nncf")
MEASURES = ("seconds", "cpu_seconds", "peak_bytes")
CHECKS = ("check_seconds", "check_cpu_seconds")
RATIOS = (*MEASURES, "all")
FAMILIES = (
    "convnext", "deit", "densenet", "efficientnet", "hrnet", "lenet", "levit", "mlp_mixer", "mobilenet_v2",
    "mobilenet_v3", "poolformer", "regnet", "repvgg", "resnet", "resnext", "seresnet", "shufflenet_v2", "swin", "twins",
    "van", "vgg",
)  # fmt: skip
"""One of every kind of network in the zoo."""


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
    checking: dict[str, float] = {}
    with _clock() as clock:
        import razordeploy as rd
        from razordeploy import deployment

        deployment.validate = _clocked(deployment.validate, checking)
        made = rd.ptq(
            module, images.split(OURS_BATCH), example_inputs=(images[:2],), backend="openvino", out_dir=folder
        )
    report = json.loads((made.path.parent / "report.json").read_text())
    checks = {f"check_{key}": checking[key] for key in checking}
    quantizing = {key: clock[key] - checking[key] for key in checking}
    return {**quantizing, **checks, "stages": report["backends"]["openvino"]["seconds"]}


def _clocked(call: Callable[..., Any], clock: dict[str, float]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with _clock() as own:
            result = call(*args, **kwargs)
        clock.update(own)
        return result

    return timed


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
    return {**clock, "check_seconds": 0.0, "check_cpu_seconds": 0.0, "stages": stages}


@contextlib.contextmanager
def _clock() -> Any:
    clock = {"start": time.perf_counter()}
    cpu = time.process_time()
    yield clock
    clock["seconds"] = time.perf_counter() - clock.pop("start")
    clock["cpu_seconds"] = time.process_time() - cpu


def _measure(tool: str, family: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", tool, "--families", family]
    command += ["--samples", str(options.samples), "--threads", str(options.threads)]
    threads = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TBB_NUM_THREADS")}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=options.limit_s,
            check=False,
            env={**os.environ, **threads},
        )
    except subprocess.TimeoutExpired:
        return {"error": f"over the limit of {options.limit_s} s"}
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1][:150]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _compare(family: str, options: argparse.Namespace) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in TOOLS}
    for _ in range(options.rounds):
        for tool in TOOLS:
            runs[tool].append(_measure(tool, family, options))
    failed = [f"{tool}: {run['error']}" for tool in TOOLS for run in runs[tool] if "error" in run]
    row: dict[str, Any] = {"family": family}
    if failed:
        return {**row, "error": failed[0]}
    for tool in TOOLS:
        row[tool] = {key: float(np.median([run[key] for run in runs[tool]])) for key in (*MEASURES, *CHECKS)}
        stages = runs[tool][0]["stages"]
        row[tool]["stages"] = {s: float(np.median([run["stages"][s] for run in runs[tool]])) for s in stages}
    row.update({f"{key} ratio": row["ours"][key] / row["nncf"][key] for key in MEASURES})
    row["all ratio"] = (row["ours"]["cpu_seconds"] + row["ours"]["check_cpu_seconds"]) / row["nncf"]["cpu_seconds"]
    return row


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"{row['family']:18s}FAILED  {row['error']}"
    times = "".join(f"{row[tool][key]:8.1f}" for tool in TOOLS for key in ("seconds", "cpu_seconds"))
    times += f"{row['ours']['check_cpu_seconds']:8.1f}"
    ratios = "".join(f"{row[f'{key} ratio']:8.2f}" for key in RATIOS)
    stages = " ".join(f"{stage} {seconds:.1f}" for stage, seconds in row["ours"]["stages"].items())
    star = "*" if "onnx" in row["nncf"]["stages"] else ""
    return f"{row['family'] + star:18s}{times}{ratios}  {stages}"


def main() -> None:
    """Print a line a family and the geometric means of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="or 'all'")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--limit-s", type=int, default=600)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", choices=TOOLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])
        print(json.dumps(child(options.child, options.families, options.samples)))
        return
    names = ("ours s", "cpu", "nncf s", "cpu", "checks", "wall", "cpu", "memory", "all")
    print(f"{'family':18s}{''.join(f'{text:>8s}' for text in names)}  stages of ours, s")
    rows = json.loads(options.json.read_text()) if options.json and options.json.exists() else []
    done = {row["family"]: row for row in rows if "error" not in row}
    rows = []
    for family in CONFIGS if options.families == "all" else options.families.split(","):
        rows.append(done.get(family) or _compare(family, options))
        print(_line(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps([*rows, *(r for f, r in done.items() if f not in families(rows))]))
    good = [row for row in rows if "error" not in row]
    if good:
        means = (float(np.exp(np.mean([np.log(row[f"{key} ratio"]) for row in good]))) for key in RATIOS)
        print(f"{f'geometric mean, {len(good)}':18s}{'':40s}" + "".join(f"{mean:8.2f}" for mean in means))


def families(rows: Sequence[dict[str, Any]]) -> set[str]:
    """Names of the families measured so far."""
    return {row["family"] for row in rows}


if __name__ == "__main__":
    main()
