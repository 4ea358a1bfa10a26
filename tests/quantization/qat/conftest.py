"""A small network with everything that training on grids has to get right, and its plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from razordeploy.backends.registry import find_backend
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.data.base import Source
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qat import phases
from razordeploy.quantization.qat.choose import chosen_fake_quants
from razordeploy.quantization.qat.graph import MakeFakeQuant, QATGraph
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.statistics import Statistics, collect, resolve


class Net(nn.Module):
    """Convolution and norm, a residual sum, pooling that passes a grid on, a linear layer."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(2)
        self.linear = nn.Linear(4 * width, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = (self.bn2(self.conv2(x)) + x).relu()
        return self.linear(self.pool(x).flatten(1))


class HardNet(Net):
    """With a hard-swish in place of the first ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.bn1(self.conv1(x)))
        return self.linear(self.pool(self.bn2(self.conv2(x)).relu()).flatten(1))


class Blobs(Source):
    """Images (1, 4, 4) of two classes, apart by their mean."""

    def __init__(self, count: int = 48) -> None:
        self.labels = torch.arange(count) % 2
        noise = torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        self.images = noise + self.labels[:, None, None, None] * 1.5

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.images[index], int(self.labels[index])

    def describe(self) -> str:
        return "blobs"

    def fingerprint(self) -> str:
        return "blobs"


class Case:
    """A captured network, calibrated for one backend."""

    def __init__(self, backend: str = "openvino", quantize: dict[str, Any] | None = None, net: type[Net] = Net) -> None:
        torch.manual_seed(0)
        self.net = net()
        self.net.train()
        self.source = Blobs()
        with torch.no_grad():
            for _ in range(20):
                self.net(self.source.images)
        self.net.eval()
        self.config = QuantizeConfig.parse(quantize or {}, "test")
        self.captured: CapturedModel = capture(self.net, (self.source.images[:2],), keep_norms=True)
        found = find_backend(backend)
        self.plan: QuantPlan = found.plan(self.captured, settings_for(found.spec, self.config))
        self.statistics: Statistics = collect(self.captured, [self.plan], [(self.source.images,)])
        self.params: dict[str, QParams] = resolve(self.captured, self.plan, self.statistics)

    def network_maker(self) -> MakeFakeQuant:
        return chosen_fake_quants(self.captured, self.plan, self.config)

    def network(self, *, live_norms: bool = False) -> QATGraph:
        made = QATGraph(self.captured, self.plan, self.params, self.network_maker())
        phases.freeze_norms(made, not live_norms)
        return made


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums then have one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
