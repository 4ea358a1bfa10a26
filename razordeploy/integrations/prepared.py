"""A model with a backend's fake quants in it, and what is made of it in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import fx

from razordeploy.artifact import Artifact, staged_directory, write_artifact
from razordeploy.backends.base import Backend, ExportJob
from razordeploy.capture.graph import CapturedModel, attribute, module_path, tensor_specs
from razordeploy.quantization.fake_quants.lsq import LearnableFakeQuantize
from razordeploy.quantization.plan import QParams, QuantPlan
from razordeploy.quantization.qat.graph import MakeFakeQuant, QATGraph
from razordeploy.quantization.simulate import simulate


class PreparedModel(QATGraph):
    """A network to calibrate and to train, whose fake quants have no scale at first.

    Args:
        captured: the float graph, captured with its norms.
        plan: where the grids are.
        params: scales of the right shapes, by group; they are forgotten.
        make: builds the fake quant of a group.
        backend: that the plan is of.
    """

    def __init__(
        self,
        captured: CapturedModel,
        plan: QuantPlan,
        params: Mapping[str, QParams],
        make: MakeFakeQuant,
        backend: Backend,
    ) -> None:
        super().__init__(captured, plan, params, make)
        self.captured, self.backend = captured, backend
        for quant in self.fake_quants():
            quant.forget()
            if not isinstance(quant, LearnableFakeQuantize):
                quant.enable_observer()

    def _refuse_frozen(self) -> None:
        """A frozen model can be calibrated, and its scales be trained."""

    def deploy_model(self) -> fx.GraphModule:
        """What the engine computes, in torch: weights and scales as they are now.

        Raises:
            DataError: a fake quant has no scale yet.
        """
        return simulate(self.trained_model(self.captured), self.plan, self.params()).eval()

    def export(
        self, out_dir: str | Path, finish: Callable[[CapturedModel], CapturedModel] = lambda graph: graph
    ) -> Artifact:
        """Write the engine and its float twin into ``out_dir``, as ``razordeploy.load_engine`` takes them.

        Args:
            out_dir: made, or replaced.
            finish: adds float operations to the graph, whose nodes keep their names.

        Raises:
            DataError: a fake quant has no scale yet.
            BackendError: the engine cannot be built.
            MissingDependency: the backend's package is not installed.
        """
        params, trained = self.params(), finish(self.trained_model(self.captured))
        marked = None
        if self.backend.needs_onnx:
            from razordeploy.backends.onnx_passes.export import export_marked

            marked = export_marked(trained, [self.plan], opset=self.backend.spec.opset)
        target, inputs_outputs = Path(out_dir), tensor_specs(trained, None, None)
        with staged_directory(target) as staged:
            job = ExportJob(captured=trained, plan=self.plan, params=params, out_dir=staged, marked=marked)
            files = self.backend.export(job)
            write_artifact(
                staged,
                kind="quantized" if self.backend.simulated_only or "engine" not in files else "engine",
                stage="qat",
                files=files,
                inputs=inputs_outputs[0],
                outputs=inputs_outputs[1],
                params={"backend": self.backend.name},
            )
        return Artifact.load(target)

    def sources(self) -> Iterator[tuple[torch.Tensor, str]]:
        """Tensors of the float model, and the names of those here that started as copies of them."""
        own = {name for name, _ in [*self.named_parameters(), *self.named_buffers()]}
        for node in self.captured.graph.nodes:
            if node.op == "get_attr" and f"module.{node.target}" in own:
                yield attribute(self.captured.graph_module, str(node.target)), f"module.{node.target}"
        folded = {str(n.target): n.meta.get("folded_norm") for n in self.captured.graph.nodes if n.op == "get_attr"}
        for layer, (weight, _) in self._folded.items():
            norm = folded[weight]
            parts = (("weight", norm.weight), ("bias", norm.bias), ("gamma", norm.gamma), ("beta", norm.beta))
            statistics = (("running_mean", norm.mean), ("running_var", norm.var))
            yield from ((t, f"module.{layer}.{part}") for part, t in (*parts, *statistics) if t is not None)

    def weight_fake_quants(self) -> Iterator[tuple[str, str, str | None]]:
        """(Path of a layer, name of its weight's fake quant, name of its folded layer or None)."""
        nodes = {n.name: n for n in self.captured.graph.nodes}
        for point in self.plan.points:
            if point.kind == "weight":
                name = self._groups[point.group]
                for user in point.users:
                    yield module_path(nodes[user]), name, self._on_layers.get(name)
