"""Wall time and peak memory of quantizing one network for OpenVINO: ours against NNCF, each in a process of its own.

    python tools/bench/quantize_time.py [--model resnet50] [--samples 300] [--rounds 3]

Both start from the same nn.Module and the same images in memory and end with the IR on disk; NNCF's time includes its
ONNX export, ours capture, calibration, placement and export.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from models import NAMES, build, images


def ours(name: str, samples: int, folder: Path) -> float:
    """Seconds from the module to the IR."""
    import openvino  # noqa: F401  (imports are not quantization)

    import razordeploy.api  # noqa: F401
    from razordeploy.backends.base import ExportJob
    from razordeploy.backends.onnx_passes.export import export_marked
    from razordeploy.backends.registry import find_backend
    from razordeploy.capture.export import capture
    from razordeploy.config.qconfig import QuantizeConfig
    from razordeploy.quantization.qconfig import settings_for
    from razordeploy.quantization.statistics import collect, resolve

    module, _ = build(name)
    data = images(name, samples, 4)
    backend = find_backend("openvino")
    start = time.perf_counter()
    steps = {}

    def lap(step: str) -> None:
        steps[step] = round(time.perf_counter() - start - sum(steps.values()), 2)

    captured = capture(module, (data[0],))
    lap("capture")
    plan = backend.plan(captured, settings_for(backend.spec, QuantizeConfig()))
    lap("place")
    params = resolve(captured, plan, collect(captured, [plan], ((x,) for x in data)))
    lap("calibrate")
    marked = export_marked(captured, [plan], opset=backend.spec.opset)
    lap("onnx")
    backend.export(ExportJob(captured=captured, plan=plan, params=params, out_dir=folder, marked=marked))
    lap("ir")
    print(json.dumps(steps), file=sys.stderr)
    return time.perf_counter() - start


def nncf(name: str, samples: int, folder: Path) -> float:
    """Seconds from the module to the IR."""
    import nncf as _  # noqa: F401
    import openvino  # noqa: F401
    from rivals import nncf_openvino

    module, shape = build(name)
    data = [x.numpy() for x in images(name, samples, 1)]
    start = time.perf_counter()
    nncf_openvino(module, shape, data, folder)
    return time.perf_counter() - start


def _child(tool: str, name: str, samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        seconds = {"ours": ours, "nncf": nncf}[tool](name, samples, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "peak_bytes": peak}))


def main() -> None:
    """Print the medians and the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", choices=NAMES)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tool", choices=("ours", "nncf"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tool:
        _child(options.tool, options.model, options.samples)
        return
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "nncf": []}
    for _ in range(options.rounds):
        for tool, found in runs.items():
            command = [
                sys.executable,
                __file__,
                "--model",
                options.model,
                "--samples",
                str(options.samples),
                "--tool",
                tool,
            ]
            output = subprocess.run(command, check=True, capture_output=True, text=True)
            found.append(json.loads(output.stdout.splitlines()[-1]))
            print(
                f"{tool:5s} {found[-1]['seconds']:7.2f} s  peak {found[-1]['peak_bytes'] / 2**20:7.0f} MiB",
                output.stderr.strip().splitlines()[-1][:150] if tool == "ours" else "",
                flush=True,
            )
    median = {
        tool: {key: sorted(r[key] for r in found)[len(found) // 2] for key in ("seconds", "peak_bytes")}
        for tool, found in runs.items()
    }
    time_ratio, memory_ratio = (median["ours"][key] / median["nncf"][key] for key in ("seconds", "peak_bytes"))
    print(f"{options.model}, {options.samples} images: ours/nncf time {time_ratio:.2f}, peak memory {memory_ratio:.2f}")


if __name__ == "__main__":
    main()
