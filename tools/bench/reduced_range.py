"""What saturation costs without VNNI, and what half-range weights save: engine against simulation, in dB.

RAZORDEPLOY_DATA=... python tools/bench/reduced_range.py [--backend openvino] [--samples 512]

Every engine is run in child processes, once with all of the processor's instructions and once with
``DNNL_MAX_CPU_ISA=AVX2``, where oneDNN adds pairs of products in 16 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHILD = """
import sys, numpy as np
import razordeploy as rd
engine = rd.load_engine(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], np.concatenate([engine(x[i:i + 64]) for i in range(0, len(x), 64)]))
"""
WIDTHS = (12, 10, 16, 18, 12)


def line(*cells: object) -> str:
    """One row of the table."""
    return "".join(str(cell).rjust(width) for cell, width in zip(cells, WIDTHS, strict=True))


def make(folder: Path, backend: str, reduced: bool) -> None:
    """Make ResNet-20's engine in ``folder``."""
    command = [sys.executable, "-m", "razordeploy.cli.main", "ptq", "ptq/cifar10_resnet20.py", "--backend", backend]
    command += ["--work-dir", str(folder), "--benchmark-seconds", "0", "--max-drop", "100"]
    command += ["--set", f"quantize.reduced_range={reduced}"]
    subprocess.run(command, check=True, capture_output=True)


def outputs(engine: Path, images: Path, isa: str | None) -> object:
    """The engine's logits for ``images``, computed in a process whose oneDNN may use ``isa`` at most."""
    import numpy as np

    environment = {k: v for k, v in os.environ.items() if k != "DNNL_MAX_CPU_ISA"}
    if isa is not None:
        environment["DNNL_MAX_CPU_ISA"] = isa
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "outputs.npy"
        command = [sys.executable, "-c", CHILD, str(engine), str(images), str(target)]
        subprocess.run(command, check=True, env=environment)
        return np.load(target)


def accuracy(logits: object, labels: object) -> float:
    """Top-1 in percent."""
    return float((logits.argmax(1) == labels).mean() * 100)  # type: ignore[attr-defined]


def main() -> None:
    """Print one row an engine, and as JSON."""
    import numpy as np
    import torch

    from razordeploy.data.loader import batches
    from razordeploy.data.sources import build_source
    from razordeploy.quantization.compare import sqnr_db
    from tools.bench.models import build

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--samples", type=int, default=512)
    options = parser.parse_args()
    found = next(iter(batches(build_source({"type": "cifar10_npz"}, "test"), options.samples, limit=options.samples)))
    images, labels = found.inputs[0].numpy(), np.asarray(found.target)
    with torch.inference_mode():
        reference = build("resnet20")[0](found.inputs[0])
    results = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        np.save(file, images)
        print(line("weights", "isa", "SQNR vs float dB", "SQNR vs VNNI dB", "top-1"))
        for reduced in (False, True):
            work = Path(folder) / f"reduced_{reduced}"
            make(work, options.backend, reduced)
            full = outputs(work / options.backend, file, None)
            for isa in (None, "AVX2"):
                got = full if isa is None else outputs(work / options.backend, file, isa)
                to_float = sqnr_db(reference, torch.as_tensor(got))
                to_full = sqnr_db(torch.as_tensor(full), torch.as_tensor(got))
                row = {"reduced": reduced, "isa": isa or "all", "sqnr_float_db": to_float, "sqnr_vnni_db": to_full}
                row["top1"] = accuracy(got, labels)
                results.append(row)
                near = "same" if to_full is None else f"{to_full:.1f}"
                name = "half range" if reduced else "full range"
                print(line(name, isa or "all", f"{to_float:.1f}", near, f"{row['top1']:.2f}"), flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main()
