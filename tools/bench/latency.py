"""Latency of our int8 engines against NNCF's (OpenVINO) and quantize_static's (ONNX Runtime), interleaved in one run.

python tools/bench/latency.py [--models resnet20,...] [--seconds 20] [--threads 2]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from models import NAMES, build, images
from rivals import nncf_openvino, ort_static

import razordeploy as rd
from razordeploy.backends.harness import interleaved_latency
from razordeploy.backends.onnxruntime.engine import ONNXRuntimeRunner
from razordeploy.backends.openvino.engine import OpenVINORunner


def measure(name: str, *, seconds: float, threads: int, samples: int) -> list[dict[str, object]]:
    """One row per backend: our latency, the rival's, the float engine's, and the two ratios."""
    module, shape = build(name)
    data = images(name, samples)
    arrays = [x.numpy() for x in data]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        made = rd.ptq(
            module, data, example_inputs=(data[0],), backend=("openvino", "onnxruntime"), out_dir=folder / "ours"
        )
        rivals = {
            "openvino": ("NNCF", OpenVINORunner(nncf_openvino(module, shape, arrays, folder), threads)),
            "onnxruntime": ("quantize_static", ONNXRuntimeRunner(ort_static(module, shape, arrays, folder), threads)),
        }
        for backend, (rival, runner) in rivals.items():
            ours = rd.load_engine(made[backend], threads=threads)
            twin = rd.Engine(made[backend], "float", threads)
            ratios = []
            for _ in range(3):  # the median of three rounds: one noisy neighbour must not decide
                times = interleaved_latency(
                    {"ours": ours.runner, "rival": runner, "float": twin.runner},
                    [np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)],
                    seconds=seconds / 3,
                )
                ratios.append((times["ours"].p50_ms / times["rival"].p50_ms, times))
            ratio, times = sorted(ratios, key=lambda r: r[0])[1]
            rows.append(
                {
                    "model": name,
                    "backend": backend,
                    "rival": rival,
                    "ours_ms": times["ours"].p50_ms,
                    "rival_ms": times["rival"].p50_ms,
                    "float_ms": times["float"].p50_ms,
                    "ours/rival": ratio,
                    "ours/float": times["ours"].p50_ms / times["float"].p50_ms,
                    "rounds": [round(r[0], 3) for r in ratios],
                }
            )
    return rows


def main() -> None:
    """Print the table and, with --json, the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--seconds", type=float, default=18.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    head = (("model", -14), ("backend", -13), ("rival", -17), ("ours ms", 9), ("rival ms", 10), ("float ms", 10))
    head = (*head, ("ours/rival", 12), ("ours/float", 12))
    print("".join(name.rjust(width) if width > 0 else name.ljust(-width) for name, width in head))
    for name in options.models.split(","):
        for row in measure(name, seconds=options.seconds, threads=options.threads, samples=options.samples):
            rows.append(row)
            numbers = f"{row['ours_ms']:9.3f}{row['rival_ms']:10.3f}{row['float_ms']:10.3f}"
            ratios = f"{row['ours/rival']:12.3f}{row['ours/float']:12.3f}"
            print(f"{name:14s}{row['backend']:13s}{row['rival']:17s}{numbers}{ratios}  {row['rounds']}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
