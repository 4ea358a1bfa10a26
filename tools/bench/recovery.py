"""What the post-training algorithms and recovery win, on real data: one command a figure.

python tools/bench/recovery.py w8a8         ResNet-20 and 56, OpenVINO and ONNX Runtime: ptq --max-drop 0.05 --recover
python tools/bench/recovery.py w4a8         ResNet-20, CIFAR-10, 4-bit weights, simulated: min-max, then each algorithm
python tools/bench/recovery.py depthwise    a depthwise network trained on CIFAR-10, one scale for each weight tensor
python tools/bench/recovery.py mobilenet    a depthwise network trained on the digits, channels of unequal range
python tools/bench/recovery.py vit          a small transformer trained on the digits, outlier channels in its norms

The first three read the CIFAR-10 archive and the public weights where ``RAZORDEPLOY_DATA`` says they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

CLI = [sys.executable, "-m", "razordeploy.cli.main"]
W4A8: dict[str, list[dict[str, Any]]] = {
    "min-max": [],
    "range search": [{"type": "RangeSearch"}],
    "bias correction": [{"type": "BiasCorrection"}],
    "AdaRound": [{"type": "AdaRound"}],
    "BRECQ": [{"type": "BRECQ"}],
    "BRECQ, no Fisher": [{"type": "BRECQ", "fisher": False}],
    "QDrop": [{"type": "QDrop"}],
    "LSQ blocks": [{"type": "LSQFinetune"}],
}


def ptq(recipe: str, backends: str, folder: Path, *more: str) -> dict[str, Any]:
    """Run the command line; a target that is not met is no error here."""
    command = [*CLI, "ptq", recipe, "--backend", backends, "--work-dir", str(folder), "--benchmark-seconds", "0", *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report["backends"]


def w8a8() -> None:
    """The engines' gaps after recovery, in points."""
    print("model      backend        plain  recovered  steps kept")
    for model in ("resnet20", "resnet56"):
        with tempfile.TemporaryDirectory() as folder:
            found = ptq(
                f"ptq/cifar10_{model}.py", "openvino,onnxruntime", Path(folder), "--max-drop", "0.05", "--recover"
            )
        for name, entry in found.items():
            r = entry["recovery"]
            kept = ", ".join(s["name"] for s in r["steps"] if s["kept"]) or "none needed"
            print(f"{model:10} {name:13} {r['start']:+6.2f} {r['end']:+10.2f}  {kept}", flush=True)


def w4a8(only: str = "") -> None:
    """Top-1 of the simulation on all test images, and the seconds that the algorithm took."""
    print("4-bit weights      float    top-1     drop  seconds")
    for name, algorithms in W4A8.items():
        if only and name not in only.split(","):
            continue
        with tempfile.TemporaryDirectory() as folder:
            sets = ("--set", "quantize.global_qconfig.w_qscheme.bit=4", f"quantize.algorithms={algorithms}")
            entry = ptq("ptq/cifar10_resnet20.py", "academic", Path(folder), "--max-drop", "100", *sets)["academic"]
        scores = [entry["metrics"][side]["top1"] for side in ("float", "simulated")]
        seconds = entry["seconds"].get("improve", 0.0)
        print(f"{name:16} {scores[0]:7.2f} {scores[1]:8.2f} {scores[0] - scores[1]:+8.2f} {seconds:8.0f}", flush=True)


def depthwise(weights: str = "") -> None:
    """Share of the drop that recovery closes; trains some minutes where there are no ``weights`` yet."""
    recipe = "ptq/cifar10_mobilenet.py"
    print("backend       weights        float   plain  recovered  closed  steps kept")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(weights or Path(folder) / "float.pth")
        if not file.is_file():
            done = subprocess.run([*CLI, "train", recipe, "--work-dir", str(file.parent), "--resume"])
            if done.returncode != 0:
                raise SystemExit(done.returncode)
        per_channel = ("--set", "quantize.global_qconfig.w_qscheme.per_channel=True")
        for grids, more in (("one scale", ()), ("per channel", per_channel)):
            limit = ("--max-drop", "0.3", "--recover", "--checkpoint", str(file), *more)
            for name, entry in ptq(recipe, "openvino,onnxruntime", Path(folder) / "ptq", *limit).items():
                r, top1 = entry["recovery"], entry["metrics"]["float"]["top1"]
                closed = f"{100 * (1 - r['end'] / r['start']):.1f}%" if r["start"] > 0.3 else "-"
                kept = ", ".join(s["name"] for s in r["steps"] if s["kept"]) or "none needed"
                scores = f"{top1:6.2f} {top1 - r['start']:7.2f} {top1 - r['end']:10.2f}"
                print(f"{name:13} {grids:12} {scores} {closed:>7}  {kept}", flush=True)


def digits(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """All images ``(N, 1, 8, 8)`` and labels of a split."""
    from razordeploy.data.loader import batches
    from razordeploy.data.sources import build_source

    found = next(iter(batches(build_source({"type": "digits"}, split), 2000)))
    assert found.target is not None
    return found.inputs[0], found.target


def train(model: nn.Module, epochs: int, lr: float) -> nn.Module:
    """Train on the digits for some seconds."""
    torch.manual_seed(0)
    x, y = digits("train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * (len(x) // 64))
    model.train()
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(len(x) // 64):
            rows = order[64 * i : 64 * i + 64]
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


class Separable(nn.Sequential):
    """Depthwise 3x3 and pointwise, each with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            *(nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False), nn.BatchNorm2d(inputs), nn.ReLU()),
            *(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()),
        )


def mobile() -> nn.Sequential:
    """MobileNetV1's form for 8x8 images: 11 convolutions, width 16 to 64."""
    widths = ((16, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1))
    stem = (nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    return nn.Sequential(
        *stem, *(Separable(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)
    )


@torch.no_grad()
def spread_ranges(model: nn.Sequential, spread: float) -> None:
    """Multiply channels between two layers by factors, and divide where they are read: the function stays.

    Large trained MobileNets have such ranges by themselves (Nagel et al. 2019, figure 2); a small one that is trained
    for seconds has not.
    """
    generator = torch.Generator().manual_seed(0)
    flat = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))]
    norms = [(m, flat[i + 1]) for i, m in enumerate(flat) if isinstance(m, nn.BatchNorm2d)]
    for norm, reader in norms:
        factors = torch.exp(
            (torch.rand(norm.num_features, generator=generator) * 2 - 1) * torch.log(torch.tensor(spread))
        )
        norm.weight.mul_(factors)
        norm.bias.mul_(factors)
        depthwise = isinstance(reader, nn.Conv2d) and reader.groups > 1
        shape = (-1, 1, 1, 1) if depthwise else (1, -1, *[1] * (reader.weight.dim() - 2))
        reader.weight.div_(factors.view(shape))  # type: ignore[operator]


def recovered(model: nn.Module, backends: list[str], quantize: dict[str, Any], max_drop: float) -> dict[str, Any]:
    """What recovery reports of each backend."""
    from razordeploy.config.qconfig import QuantizeConfig
    from razordeploy.config.sections import DeployConfig
    from razordeploy.data.batch import Batch
    from razordeploy.job import PTQJob
    from razordeploy.pipeline import run_ptq

    (x, _), (xt, yt) = digits("train"), digits("test")
    with tempfile.TemporaryDirectory() as folder:
        job = PTQJob(
            model=model,
            example_inputs=(x[:2],),
            calibration=lambda: iter([Batch((x[:320],), None)]),
            evaluation=lambda: iter([Batch((xt,), yt)]),
            backends=backends,
            work_dir=Path(folder),
            quantize=QuantizeConfig.parse(quantize, "bench"),
            deploy=DeployConfig(max_drop=max_drop),
            benchmark_seconds=0,
            recover=True,
        )
        return run_ptq(job).backends


def mobilenet() -> None:
    """Share of the drop that recovery closes."""
    model = mobile()
    train(model, epochs=15, lr=1e-2)
    spread_ranges(model, 30.0)
    print("backend       weights  float   plain  recovered  closed  steps kept")
    cases = ((["openvino", "onnxruntime"], {}, "8"), (["academic"], {"w_qscheme": {"bit": 3}}, "3"))
    for backends, qconfig, bits in cases:
        for name, entry in recovered(model, backends, {"global_qconfig": qconfig}, 0.0).items():
            r, top1 = entry["recovery"], entry["metrics"]["float"]["top1"]
            closed = 100 * (1 - r["end"] / r["start"]) if r["start"] > 0 else 100.0
            kept = ", ".join(s["name"] for s in r["steps"] if s["kept"])
            before, after = top1 - r["start"], top1 - r["end"]
            print(f"{name:13} {bits:>7} {top1:6.2f} {before:7.2f} {after:10.2f} {closed:6.0f}%  {kept}", flush=True)


class ViTBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, C) -> (N, T, C)."""
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4).unbind(0)
        a = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(a.transpose(1, 2).reshape(n, t, c))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
    """2x2 patches of an 8x8 image, three blocks, the mean over the patches."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.place = nn.Parameter(0.02 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(ViTBlock(width) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 8, 8) -> logits (N, 10)."""
        x = self.blocks(self.embed(x).flatten(2).transpose(1, 2) + self.place)
        return self.head(self.norm(x).mean(1))


@torch.no_grad()
def plant_outliers(model: ViT, factor: float) -> None:
    """Three channels of every norm become ``factor`` times as large, and are read by as much smaller weights."""
    for block in model.blocks:
        assert isinstance(block, ViTBlock)
        for norm, reader in ((block.norm1, block.qkv), (block.norm2, block.fc1)):
            norm.weight[5:8] *= factor
            norm.bias[5:8] *= factor
            reader.weight[:, 5:8] /= factor


def vit() -> None:
    """SQNR of the engines' logits against float, in dB."""
    import razordeploy as rd
    from razordeploy.quantization.compare import sqnr_db

    torch.manual_seed(0)
    model = ViT()
    train(model, epochs=20, lr=3e-3)
    plant_outliers(model, 60.0)
    (x, _), (xt, yt) = digits("train"), digits("test")
    with torch.inference_mode():
        expected = model(xt)
    print("backend        algorithm      dB     gain   top-1 float  engine")
    for backend in ("openvino", "onnxruntime"):
        plain = None
        for algorithms in ([], ["RangeSearch"], ["SmoothQuant"], ["SmoothQuant", "RangeSearch"]):
            with tempfile.TemporaryDirectory() as folder:
                options: dict[str, Any] = {"quantize": {"algorithms": algorithms}, "out_dir": folder}
                made = rd.ptq(model, x[:320], example_inputs=(x[:2],), backend=backend, **options)
                logits = torch.as_tensor(rd.load_engine(made)(xt.numpy()))
            found = sqnr_db(expected, logits)
            plain = found if plain is None else plain
            scores = [float((z.argmax(1) == yt).float().mean() * 100) for z in (expected, logits)]
            name = "+".join(algorithms) or "plain"
            print(f"{backend:13} {name:24} {found:6.1f} {found - plain:+6.1f} {scores[0]:8.2f} {scores[1]:8.2f}")


def main() -> None:
    """Print one figure's table."""
    figures = {"w8a8": w8a8, "w4a8": w4a8, "depthwise": depthwise, "mobilenet": mobilenet, "vit": vit}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figure", choices=figures)
    parser.add_argument("--only", default="", help="Rows of w4a8, comma-separated; default: all.")
    parser.add_argument("--weights", default="", help="Of depthwise: file to train into, or that is there already.")
    options = parser.parse_args()
    if options.figure == "w4a8":
        w4a8(options.only)
    elif options.figure == "depthwise":
        depthwise(options.weights)
    else:
        figures[options.figure]()


if __name__ == "__main__":
    main()
