"""One suite of patterns, run on every backend: what is planned, what the engine runs in int8, and what it computes."""

from __future__ import annotations

import importlib.util
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from razordeploy.backends.base import Backend, ExportJob, Runner
from razordeploy.backends.harness import coverage, torch_runner
from razordeploy.backends.registry import BUILT_IN, missing_modules
from razordeploy.capture.export import capture
from razordeploy.capture.graph import CapturedModel
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.quantization.compare import sqnr_db
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qconfig import settings_for
from razordeploy.quantization.simulate import simulate
from razordeploy.quantization.statistics import collect, resolve

Arrays = tuple[np.ndarray, ...]


def _backends() -> dict[str, Backend]:
    found = {}
    for name in BUILT_IN:
        if importlib.util.find_spec(f"razordeploy.backends.{name}.backend") is not None:
            found[name] = importlib.import_module(f"razordeploy.backends.{name}.backend").BACKEND
    return found


def _whatever_the_size(backend: Backend) -> Backend:
    """TensorRT's quantizer leaves layers as small as these float: the patterns are quantized all the same."""
    if backend.name != "tensorrt":
        return backend
    from razordeploy.backends.tensorrt.quantizer import placed

    return replace(backend, plan=lambda captured, settings: placed(captured, settings, min_channels=0))


_BACKENDS = {name: _whatever_the_size(found) for name, found in _backends().items()}


_SLOW_TO_BUILD = {"torch_native"}
"""Engines that a C++ compiler makes, for many seconds: built under ``-m slow`` only; their plans are always checked."""
_PARAMS = [pytest.param((name, name not in _SLOW_TO_BUILD), id=name) for name in sorted(_BACKENDS)] + [
    pytest.param((name, True), id=f"{name}-engine", marks=pytest.mark.slow)
    for name in sorted(_SLOW_TO_BUILD & set(_BACKENDS))
]


@pytest.fixture(params=_PARAMS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in the tree; an absent engine skips, or fails where RAZORDEPLOY_REQUIRE names it."""
    found = _BACKENDS[request.param[0]]
    missing = missing_modules(found.spec)
    if missing:
        reason = f"{found.name} needs {', '.join(missing)}"
        if found.name in os.environ.get("RAZORDEPLOY_REQUIRE", "").split(","):
            pytest.fail(f"{reason}, and RAZORDEPLOY_REQUIRE asks for it")
        pytest.skip(reason)
    return found


@pytest.fixture
def tester(request: pytest.FixtureRequest, backend: Backend, tmp_path: Path) -> Callable[..., Tester]:
    """``tester(model_factory, *inputs, **options) -> Tester``, quantized for this test's backend."""
    name = f"{request.node.path.name}::{request.node.originalname}"
    others = {k: v for k, v in request.node.callspec.params.items() if k != "backend"}
    key = f"{name}{others}" if others else name

    def make(
        model: Callable[[], torch.nn.Module], *inputs: Any, dynamic: bool = True, batches: Sequence[int] = ()
    ) -> Tester:
        seed = zlib.crc32(key.encode())
        work = _Work.of(f"{key}/{len(inputs)}/{dynamic}", seed, model, inputs, dynamic)
        builds = request.node.callspec.params["backend"][1] and not backend.simulated_only
        return Tester(work, backend, tmp_path, tuple(batches), seed, builds)

    return make


@dataclass
class _Work:
    """A captured model with its plans, statistics and marked export: made once and shared by the backends."""

    captured: CapturedModel
    model: torch.nn.Module
    inputs: tuple[Any, ...]
    plans: dict[str, QuantPlan]
    params: dict[str, dict[str, QParams]]
    marked: Any

    @classmethod
    def of(
        cls, key: str, seed: int, factory: Callable[[], torch.nn.Module], inputs: tuple[Any, ...], dynamic: bool
    ) -> _Work:
        if key not in _CACHE:
            _CACHE.clear()  # the backends of one test run one after the other
            _CACHE[key] = cls._make(seed, factory, inputs, dynamic)
        return _CACHE[key]

    @classmethod
    def _make(cls, seed: int, factory: Callable[[], torch.nn.Module], inputs: tuple[Any, ...], dynamic: bool) -> _Work:
        from razordeploy.backends.onnx_passes.export import export_marked

        torch.manual_seed(seed)
        model = _with_statistics(factory().eval())
        captured = capture(model, tuple(_random(i, 0, seed) for i in inputs), dynamic_batch=dynamic)
        config = QuantizeConfig()
        plans = {n: b.plan(captured, settings_for(b.spec, config)) for n, b in _BACKENDS.items()}
        batches = [_leaves([_random(i, 0, seed + k) for i in inputs]) for k in range(1, 5)]
        statistics = collect(captured, list(plans.values()), batches)
        params = {n: resolve(captured, plan, statistics) for n, plan in plans.items()}
        readers = [n for n, b in _BACKENDS.items() if b.needs_onnx]
        opset = max((_BACKENDS[n].spec.opset for n in readers), default=0)
        marked = export_marked(captured, [plans[n] for n in readers], opset=opset) if readers else None
        return cls(captured, model, inputs, plans, params, marked)


_CACHE: dict[str, _Work] = {}


def _with_statistics(model: torch.nn.Module) -> torch.nn.Module:
    """Give batch norms statistics that are not 0 and 1, which would hide a wrong fold."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.2)
    return model


def _random(spec: Any, batch: int, seed: int) -> Any:
    """A tensor of a shape ``(N, ...)``, ``batch`` for its N where given; dicts and lists of shapes keep their nest."""
    if isinstance(spec, dict):
        return {k: _random(v, batch, seed + 17 * i) for i, (k, v) in enumerate(spec.items())}
    if isinstance(spec, list):
        return [_random(v, batch, seed + 31 * i) for i, v in enumerate(spec)]
    generator = torch.Generator().manual_seed(seed * 2 + sum(spec))
    return torch.randn((batch or spec[0], *spec[1:]), generator=generator)


def _leaves(tree: Any) -> tuple[torch.Tensor, ...]:
    return tuple(torch.utils._pytree.tree_leaves(tree))


_EXACT = {"openvino", "onnxruntime"}
_WEIGHTED = ("conv1d", "conv2d", "conv3d", "linear")
_EDGES = {
    "openvino": {"FakeQuantize", "Reshape", "Transpose", "Subgraph"},
    "onnxruntime": {"Shape", "Squeeze", "Concat"},
}
"""Quantizing the inputs, laying out constants, computing shapes."""


@dataclass
class Tester:
    """Holds one backend's plan and engine of one model against what a test expects; every check returns itself."""

    work: _Work
    backend: Backend
    folder: Path
    batches: tuple[int, ...]
    """Batch sizes to run on besides the captured one."""
    seed: int
    builds: bool = True
    """False: there is no engine, or it is left out because it takes long to build."""
    notes: tuple[str, ...] = ("size",)
    """Rules of the backend's own that may note that the pattern is slow."""
    least_db: float = 15.0
    """What quantizing must keep of the float outputs; eight bits keep 25 and more of most patterns."""
    _files: dict[str, str] = field(default_factory=dict)

    @property
    def plan(self) -> QuantPlan:
        """This backend's plan."""
        return self.work.plans[self.backend.name]

    @property
    def params(self) -> dict[str, QParams]:
        """This backend's scales."""
        return self.work.params[self.backend.name]

    @property
    def float_reasons(self) -> dict[str, str]:
        """Kind -> why it stays float, of the operations that do."""
        return {op.kind: op.reason or "" for op in self.plan.ops if not op.int8}

    def check_points(self, **expected: tuple[int, int]) -> Tester:
        """Count ``(activation, weight)`` pairs in the plan, and the Q and DQ nodes in the ONNX file."""
        kinds = Counter(p.kind for p in self.plan.points)
        found = (kinds["activation"], kinds["weight"])
        wanted = expected.get(self.backend.name)
        assert wanted is None or found == wanted, f"{found} pairs, expected {wanted}: {_points(self.plan)}"
        if self.backend.needs_onnx:
            from razordeploy.backends.onnx_passes.qdq import quantized_model

            graph = quantized_model(self.work.marked, self.plan, self.params).graph
            nodes = Counter(n.op_type for n in graph if not str(n.name).endswith(".bias.dequantize"))
            assert (nodes["QuantizeLinear"], nodes["DequantizeLinear"]) == (found[0], sum(found))
            assert all(n.domain != "razordeploy" for n in graph)
        return self

    def check_int8(self, expected: Mapping[str, int], **instead: Mapping[str, int]) -> Tester:
        """Compare the kinds planned with ``expected``, and the plan with what the engine's own graph runs in int8.

        Args:
            expected: kind -> how many; exact for the backends of ``_EXACT``. Others must plan what has a weight, or
                state in their YAML why not.
            instead: backend -> the exact plan there.
        """
        planned = Counter(op.kind for op in self.plan.ops if op.int8)
        name = self.backend.name
        if name in instead or name in _EXACT:
            wanted = Counter(instead.get(name, expected))
            assert planned == wanted, f"planned {dict(planned)}, float: {self.float_reasons}"
        else:
            rules = self.backend.spec.ops
            stated = {k for k, rule in rules.items() if not rule.enabled} | set(self.backend.spec.float_reasons)
            lacking = Counter({k: n for k, n in expected.items() if k.endswith(_WEIGHTED)}) - planned
            assert set(lacking) <= stated, f"not planned: {dict(lacking)}, float: {self.float_reasons}"
        assert all(op.reason for op in self.plan.ops if not op.int8)
        if self._has_engine():
            found = coverage(self.plan.ops, self._load("engine").runtime_ops())
            floats = [f for f in found.float_ops if "planned" in f.reason or "does not name" in f.reason]
            assert found.int8 == found.planned == sum(planned.values()), f"{floats}"
        return self

    def check_float_kernels(self, **types: set[str]) -> Tester:
        """Compare the types of all operations that the engine's own graph runs in float, what moves bytes left out."""
        if self._has_engine() and self.backend.name in types:
            found = {o.type for o in self._load("engine").runtime_ops() if not o.int8}
            assert found - _EDGES.get(self.backend.name, set()) == types[self.backend.name]
        return self

    def run_and_compare(self, steps: float | None = None, *, relative: float = 1e-4) -> Tester:
        """Simulation against engine in output steps (None: the YAML's), and both graphs against torch in float."""
        if not self.builds:
            return self
        limit = self.backend.spec.parity_steps if steps is None else steps
        simulated = torch_runner(simulate(self.work.captured, self.plan, self.params))
        roles = ("engine", "float") if self._has_engine() else ("onnx", "onnx_float")
        engine, twin = (self._load(role) for role in roles)
        for batch in (self.work.captured.batch_size, *self.batches):
            tree = [_random(i, batch, self.seed + 1000 + batch) for i in self.work.inputs]
            arrays = [t.numpy() for t in _leaves(tree)]
            with torch.inference_mode():
                torch_outputs = [t.numpy() for t in _leaves(self.work.model(*tree))]
            for a, b in zip(torch_outputs, _tuple(twin(*arrays)), strict=True):
                assert a.shape == b.shape
                assert np.abs(a - b).max() <= relative * max(np.abs(a).max(), 1e-3), "float twin against torch"
            quantized = _tuple(simulated(*arrays))
            for i, (a, b) in enumerate(zip(torch_outputs, quantized, strict=True)):
                kept = sqnr_db(torch.from_numpy(a).double(), torch.from_numpy(b).double())
                assert kept is None or kept >= self.least_db, f"output {i}, batch {batch}: quantizing keeps {kept} dB"
            outputs = zip(quantized, _tuple(engine(*arrays)), self._steps(torch_outputs), strict=True)
            for i, (a, b, step) in enumerate(outputs):
                off = np.abs(a.astype(np.float64) - b).max() / step
                assert off <= limit + 1e-3, f"output {i}, batch {batch}: {off:.3f} steps between simulation and engine"
        return self

    def _steps(self, outputs: Sequence[np.ndarray]) -> list[float]:
        """Quantization step of each output: its scale where the plan quantizes it, else 1/255 of its range."""
        nodes = [n.name for n in self.work.captured.output_nodes()]
        scales = {p.node: float(self.params[p.group].scale) for p in self.plan.points
                  if p.kind == "activation" and "output" in p.users}  # fmt: skip
        return [scales.get(n) or max(float(np.ptp(v)), 1e-6) / 255 for n, v in zip(nodes, outputs, strict=True)]

    def _has_engine(self) -> bool:
        """False: left out, or the graph alone can be written here, which runs as it is written."""
        return self.builds and self.backend.absent() is None

    def _load(self, role: str) -> Runner:
        if not self._files:
            job = ExportJob(
                captured=self.work.captured,
                plan=self.plan,
                params=self.params,
                out_dir=self.folder,
                marked=self.work.marked,
            )
            self._files = self.backend.export(job)
            if "findings" in self._files:
                found = json.loads((self.folder / self._files["findings"]).read_text())
                assert not [f for f in found if f["severity"] == "error" or f["rule"] not in self.notes], found
        return self.backend.load(self.folder, self._files, role, 1)


def _tuple(value: Any) -> Arrays:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _points(plan: QuantPlan) -> list[tuple[str, tuple[str, ...]]]:
    return [(p.node, p.users) for p in plan.points]
