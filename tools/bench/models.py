"""Networks of the benchmarks: CIFAR-10 ResNets with public weights, mmcls classifiers with fitted batch norms."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

CIFAR = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
MMCLS = {
    "resnet18": ("ResNet", {"depth": 18, "num_stages": 4, "out_indices": (3,)}, 512),
    "resnet50": ("ResNet", {"depth": 50, "num_stages": 4, "out_indices": (3,)}, 2048),
    "mobilenet_v2": ("MobileNetV2", {"widen_factor": 1.0}, 1280),
}
NAMES = (*CIFAR, *MMCLS)


def build(name: str) -> tuple[torch.nn.Module, tuple[int, ...]]:
    """Return a float module in eval mode and its input shape (C, H, W)."""
    if name in CIFAR:
        return _cifar(name), (3, 32, 32)
    return _mmcls(name), (3, 224, 224)


def images(name: str, count: int, batch: int = 1) -> list[torch.Tensor]:
    """Calibration batches: CIFAR-10 training images, or noise for the networks with random weights."""
    if name in CIFAR:
        from razordeploy.data.loader import batches
        from razordeploy.data.sources import build_source

        source = build_source({"type": "cifar10_npz"}, "train")
        return [b.inputs[0] for b in batches(source, batch, limit=count, shuffle=True)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 3, 224, 224, generator=generator) for _ in range(count // batch)]


def _cifar(name: str) -> torch.nn.Module:
    from razordeploy.capture.checkpoint import load_into
    from razordeploy.data.cifar10_npz import data_root
    from razordeploy.models import cifar

    module: torch.nn.Module = getattr(cifar, name)()
    folder = Path(data_root())
    folder = folder if (folder / "checkpoints").is_dir() else folder.parent
    load_into(module, folder / "checkpoints" / CIFAR[name], key_mapping={r"^module\.": ""})
    return module.eval()


def _mmcls(name: str) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mmcls.models  # noqa: F401  (registers the classes)
        from mmcls.registry import MODELS
    kind, options, channels = MMCLS[name]
    torch.manual_seed(0)
    module = MODELS.build(
        {
            "type": "ImageClassifier",
            "backbone": {"type": kind, **options},
            "neck": {"type": "GlobalAveragePooling"},
            "head": {"type": "LinearClsHead", "num_classes": 1000, "in_channels": channels},
        }
    )
    wrapped = _Logits(module)
    wrapped.train()
    with torch.no_grad():  # statistics that fit the data, or activations explode and every range is wrong
        for batch in images(name, 24, 8):
            wrapped(batch)
    return wrapped.eval()


class _Logits(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(x, mode="tensor")
