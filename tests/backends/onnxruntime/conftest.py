"""A model quantized for ONNX Runtime by hand, so that a test may change what lies between the steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from razordeploy.capture.export import capture
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve


@dataclass(frozen=True, kw_only=True)
class Built:
    """An engine beside its simulation."""

    plan: QuantPlan
    path: Path
    kernels: Counter[str]
    """``type precision`` of what the engine runs, reshapes left out."""
    found: np.ndarray
    simulated: np.ndarray

    @property
    def floats(self) -> list[str]:
        """Kernels that compute in float."""
        return [kind for kind in self.kernels if kind.endswith("f32")]

    @property
    def steps(self) -> float:
        """Largest difference of engine and simulation in steps of the output's range."""
        return float(np.abs(self.found - self.simulated).max() / (np.ptp(self.simulated) / 255))


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Built]:
    """``build(net, x, change) -> Built``; ``change(group, qparams)`` moves grids."""
    pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    import onnx_ir as ir

    from razordeploy.backends.onnx_passes.export import export_marked
    from razordeploy.backends.onnx_passes.qdq import quantized_model
    from razordeploy.backends.onnxruntime import rewrite as ours
    from razordeploy.backends.onnxruntime.backend import BACKEND
    from razordeploy.backends.onnxruntime.engine import ONNXRuntimeRunner

    def make(
        net: torch.nn.Module,
        x: torch.Tensor,
        change: Callable[[str, QParams], QParams] = lambda group, q: q,
    ) -> Built:
        captured = capture(net.eval(), (x,), dynamic_batch=True)
        plan = BACKEND.plan(captured, settings_for(BACKEND.spec, QuantizeConfig()))
        params = resolve(captured, plan, collect(captured, [plan], [(x,)]))
        params = {group: change(group, q) for group, q in params.items()}
        path = tmp_path / "model.onnx"
        ir.save(quantized_model(export_marked(captured, [plan], opset=20), plan, params, ours.rewrite), path)
        runner = ONNXRuntimeRunner(path, 1)
        with torch.no_grad():
            simulated = simulate(captured, plan, params)(x).numpy()
        kernels = Counter(f"{op.type} {op.precision}" for op in runner.runtime_ops() if op.type != "Reshape")
        return Built(plan=plan, path=path, kernels=kernels, found=np.asarray(runner(x.numpy())), simulated=simulated)

    return make
