"""How fast a subnet's cost is known: FLOPs and parameters from the graph, latency from engines that are built.

    python tools/bench/resources.py [--models resnet50,mobilenet_v2] [--side 64] [--backend openvino]

Columns: random choices of widths a second (target: 100, no model is copied), MACs and parameters of the whole model and
at half width, and the engines' median latency in float and int8, whole and at half width.
"""

from __future__ import annotations

import argparse
import random
import time
import warnings
from pathlib import Path

import torch

CONFIGS = {
    "resnet50": "mmcls::resnet/resnet50_8xb32_in1k.py",
    "mobilenet_v2": "mmcls::mobilenet_v2/mobilenet-v2_8xb32_in1k.py",
}


def run(name: str, side: int, backend: str, seconds: float) -> None:
    """Measure one model and print its row."""
    from razordeploy.capture.config_model import read_model_config
    from razordeploy.capture.openmmlab import make_plain
    from razordeploy.compress.algorithm.build_model import build_architecture
    from razordeploy.latency import engine_latency
    from razordeploy.subnet.estimate import ResourceEstimator

    config = read_model_config({"cfg_path": CONFIGS[name]}, Path(), name)
    model = make_plain(build_architecture(config, name).eval())[0]
    inputs = (torch.randn(1, 3, side, side),)
    costs = {f"{kind}@{backend}": engine_latency(backend, int8=kind == "int8") for kind in ("float", "int8")}
    estimator = ResourceEstimator(example_inputs=inputs, cost=costs)
    counter = estimator.counter(model)
    units = counter.graph.prunable
    choices = [{n: random.randint(1, u.channels) for n, u in units.items() if u.primary} for _ in range(50)]
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        counter.flops_and_params(counter.graph.select(choices[done % len(choices)]))
        done += 1
    rate = done / (time.perf_counter() - start)
    whole, half = estimator.estimate(model), estimator.estimate(model, 0.5)
    sizes = "  ".join(f"{key} {whole[key]:.1f} M -> {half[key]:.1f} M" for key in ("macs", "params"))
    times = "  ".join(f"{key} {whole[key]:.2f} -> {half[key]:.2f} ms" for key in costs)
    print(f"{name:14s}{rate:8.0f} candidates/s  {sizes}  {times}", flush=True)


def main() -> None:
    """Run every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(CONFIGS))
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    random.seed(0)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    for name in options.models.split(","):
        run(name, options.side, options.backend, options.seconds)


if __name__ == "__main__":
    main()
