"""Networks as they are trained, deployed by their own switch_to_deploy() and by the merging of the captured graph.

    python tools/bench/branches.py random     RepVGG-A0, MobileOne-s0 of mmcls: random weights, norms fitted to images
    python tools/bench/branches.py trained    a RepVGG trained on 12,000 images of CIFAR-10, 3,000 test images

The second reads the CIFAR-10 archive where ``RAZORDEPLOY_DATA`` says it is. Latency: batch 1, both engines in turns.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import razordeploy as rd
from razordeploy.data.cifar10_npz import Cifar10Npz

BACKENDS = ("openvino", "onnxruntime")
SMALL = {
    "num_blocks": [1, 3, 4, 1],
    "width_factor": [0.75, 0.75, 0.75, 0.5],
    "group_layer_map": None,
    "se_cfg": None,
    "stem_channels": 48,
}
EPOCHS, BATCH = 10, 128


class Classifier(nn.Module):
    """A backbone of mmcls, a pooling and a linear layer."""

    def __init__(self, name: str, arch: Any, classes: int) -> None:
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mmcls.models
        self.backbone = getattr(mmcls.models, name)(arch)
        self.head = nn.LazyLinear(classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (N, classes)."""
        return self.head(self.backbone(x)[-1].mean((2, 3)))


def compare(net: nn.Module, calibration: torch.Tensor, images: torch.Tensor, labels: torch.Tensor | None) -> None:
    """Print one row per engine and form."""
    switched = copy.deepcopy(net)
    switched.backbone.switch_to_deploy()
    with torch.no_grad():
        expected = torch.cat([net(x) for x in images.split(500)])
    with tempfile.TemporaryDirectory() as folder:
        engines = {}
        for form, model in (("its method", switched), ("the graph", net)):
            made = rd.ptq(
                model,
                list(calibration.split(8)),
                example_inputs=(calibration[:2],),
                backend=BACKENDS,
                out_dir=Path(folder) / form,
            )
            engines[form] = {backend: rd.load_engine(artifact) for backend, artifact in made.items()}
        for backend in BACKENDS:
            turns = {form: [] for form in engines}
            for _ in range(5):
                for form in engines:
                    turns[form].append(engines[form][backend].benchmark(batch=1, seconds=1).p50_ms)
            for form, found in engines.items():
                logits = np.concatenate([found[backend](x.numpy()) for x in images.split(500)])
                print(f"  {backend:12} {form:11} {told(torch.tensor(logits), expected, labels)} "
                      f"{np.median(turns[form]) / np.median(turns['its method']):5.2f}", flush=True)  # fmt: skip


def told(found: torch.Tensor, expected: torch.Tensor, labels: torch.Tensor | None) -> str:
    """Cosine, SQNR in dB and, with labels, top-1 in percent."""
    cosine = F.cosine_similarity(found.flatten(), expected.flatten(), 0)
    sqnr = 10 * torch.log10(expected.square().sum() / (found - expected).square().sum())
    top1 = "" if labels is None else f"{100 * (found.argmax(1) == labels).float().mean():6.2f}"
    return f"{cosine:.4f} {sqnr:5.1f} {top1}"


def random() -> None:
    """Random weights; only rounding shows."""
    for name, arch in (("RepVGG", "A0"), ("MobileOne", "s0")):
        torch.manual_seed(0)
        net = Classifier(name, arch, 1000)
        net.eval()
        images = torch.randn(24, 3, 224, 224)
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.train()
            norm.momentum = None
            norm.reset_running_stats()
        with torch.no_grad():
            net(images)
        net.eval()
        print(f"{name}-{arch}: cosine, SQNR (dB), latency over its method's")
        compare(net, images[:16], images[16:], None)


def trained() -> None:
    """A network that has learnt something; its norms' factors are those of training."""
    torch.manual_seed(0)
    (x, y), (images, labels) = read("train", 12000), read("test", 3000)
    net = Classifier("RepVGG", SMALL, 10)
    net(x[:2])
    steps = EPOCHS * (len(x) // BATCH)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=steps)
    net.train()
    for _ in range(EPOCHS):
        for part in torch.randperm(len(x)).split(BATCH)[: len(x) // BATCH]:
            batch = x[part].flip(3) if torch.rand(()) < 0.5 else x[part]
            top, left = torch.randint(0, 7, (2,)).tolist()
            batch = F.pad(batch, (3, 3, 3, 3))[:, :, top : top + 32, left : left + 32]
            optimizer.zero_grad()
            F.cross_entropy(net(batch), y[part]).backward()
            optimizer.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        top1 = 100 * (net(images).argmax(1) == labels).float().mean()
    print(f"RepVGG on CIFAR-10, float {top1:.2f}: cosine, SQNR (dB), top-1, latency over its method's")
    compare(net, x[:512], images, labels)


def read(split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``count`` images (N, 3, 32, 32) and labels, the same ones every time."""
    data = Cifar10Npz(split=split)
    chosen = np.random.default_rng(0).permutation(len(data))[:count]
    images, labels = zip(*(data[int(i)] for i in chosen), strict=True)
    return torch.stack(images), torch.tensor(labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("random", "trained"))
    {"random": random, "trained": trained}[parser.parse_args().which]()
