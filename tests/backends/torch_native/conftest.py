"""One compiled package a network, shared by the tests of a module: compiling takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn

from razordeploy.backends.base import ExportJob
from razordeploy.backends.torch_native.backend import BACKEND
from razordeploy.backends.torch_native.engine import TorchNativeRunner
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.backend_spec import OpRule
from razordeploy.quantization.placement import OpSettings, Settings
from razordeploy.quantization.plan import ObserverSpec, QuantPlan
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve


@dataclass
class Deployed:
    """A network in its four forms."""

    model: nn.Module
    plan: QuantPlan
    simulated: nn.Module
    engine: TorchNativeRunner
    float_engine: TorchNativeRunner
    folder: Path
    sample: tuple[int, ...]
    """Shape of one sample, without the batch."""

    def batch(self, size: int) -> np.ndarray:
        """``size`` samples, the same ones at every call."""
        return np.random.default_rng(size).standard_normal((size, *self.sample)).astype(np.float32)

    def expected(self, x: np.ndarray) -> np.ndarray:
        """What the simulation gives."""
        with torch.no_grad():
            return self.simulated(torch.from_numpy(x)).numpy()

    def kernel(self, node: str) -> tuple[str, str]:
        """Type and precision of the operation that runs captured node ``node``."""
        found = [(op.type, op.precision) for op in self.engine.runtime_ops() if node in op.origins]
        assert len(found) == 1, f"{node}: {found}"
        return found[0]

    def not_int8(self) -> list[str]:
        """Planned operations that no int8 kernel runs."""
        covered = {origin for op in self.engine.runtime_ops() if op.int8 for origin in op.origins}
        return [op.node for op in self.plan.ops if op.int8 and op.node not in covered]


def default_settings(**changes: dict[str, Any]) -> Settings:
    """The YAML's own grids; ``activation`` and ``weight`` replace parts of them."""
    spec = BACKEND.spec

    def settings(node: fx.Node, kind: str, rule: OpRule) -> OpSettings:
        return OpSettings(
            activation=replace(spec.activation.scheme(), **changes.get("activation", {})),
            weight=replace(spec.weight.scheme(rule.axis), **changes.get("weight", {})),
            activation_observer=ObserverSpec(type=spec.activation.observer),
            weight_observer=ObserverSpec(type=spec.weight.observer),
            skip=None if rule.enabled else rule.reason,
        )

    return settings


def captured_and_planned(
    model: nn.Module, sample: tuple[int, ...], **changes: dict[str, Any]
) -> tuple[CapturedModel, QuantPlan]:
    """Capture ``model`` and plan it."""
    captured = capture(model.eval(), (torch.randn(1, *sample),))
    return captured, BACKEND.plan(captured, default_settings(**changes))


@pytest.fixture
def yaml_settings() -> Callable[..., Settings]:
    """Make settings from the YAML."""
    return default_settings


@pytest.fixture
def make_plan() -> Callable[..., QuantPlan]:
    """Plan a model."""
    return lambda model, sample, **changes: captured_and_planned(model, sample, **changes)[1]


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Deployed]:
    """Calibrate, export and load a network."""

    def build(model: nn.Module, *sample: int, **changes: dict[str, Any]) -> Deployed:
        captured, plan = captured_and_planned(model, sample, **changes)
        generator = torch.Generator().manual_seed(1)
        data = [(torch.randn(32, *sample, generator=generator),)]
        params = resolve(captured, plan, collect(captured, [plan], data))
        folder = tmp_path_factory.mktemp("torch_native")
        files = BACKEND.export(ExportJob(captured=captured, plan=plan, params=params, out_dir=folder))
        assert {p.name for p in folder.iterdir()} == set(files.values())
        engine, twin = (BACKEND.load(folder, files, role, 1) for role in ("engine", "float"))
        return Deployed(model, plan, simulate(captured, plan, params), engine, twin, folder, sample)  # type: ignore[arg-type]

    return build
