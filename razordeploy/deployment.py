"""From one backend's draft to its engine in the work dir: export, hold against the float model, write the artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from razordeploy.artifact import Artifact, staged_directory, write_artifact
from razordeploy.backends.base import Backend, ExportJob
from razordeploy.backends.usage import usage_text
from razordeploy.capture.graph import CapturedModel, tensor_specs
from razordeploy.each_backend import Made, Timer
from razordeploy.environment import versions
from razordeploy.garbage import collection_paused
from razordeploy.job import PTQJob, begin
from razordeploy.quantization.cache import model_digest
from razordeploy.quantization.changes import write_changes
from razordeploy.quantization.draft import Draft
from razordeploy.quantization.plan import QuantPlan
from razordeploy.quantization.stored import plan_record
from razordeploy.strict_json import json_text
from razordeploy.validation import unbuilt, validate


@dataclass(kw_only=True)
class Deployment:
    """What the engines of one run share."""

    job: PTQJob
    captured: CapturedModel
    """The float model."""
    float_metrics: dict[str, float]
    marked: Any = None
    """The float model's one ONNX export; None where no backend reads ONNX."""
    stage: str = "ptq"
    """What the artifacts say they come from."""

    def make(self, backend: Backend, draft: Draft, target: Path | None = None) -> Made:
        """Export ``draft`` into ``target`` (default: the backend's folder of the work dir) and measure it."""
        job, timer = self.job, Timer()
        replaces = target is None
        target = job.work_dir / backend.name if target is None else target
        with staged_directory(target) as staged:
            with timer("export"), collection_paused():
                begin(job, f"{backend.name}: export")
                files = backend.export(self.export_job(backend, draft, staged))
                (staged / "placement.json").write_text(json_text(plan_record(draft.plan, draft.params)))
                files = {**files, "plan": "placement.json"}
                if draft.own:
                    files.update(write_changes(self.captured, draft, staged))
            with timer("validate"):
                entry = validate(
                    job, backend, draft.captured, draft.plan, draft.params, staged, files, self.float_metrics,
                    reference=draft.float_model(),
                )  # fmt: skip
                (staged / "layers.json").write_text(json_text(entry["layers"]))
                files["layers"] = "layers.json"
            begin(job, f"{backend.name}: write")
            self._write(backend, staged, files, entry)
            if replaces:
                job.before_replacing()
        entry["seconds"] = timer.seconds
        entry["files"] = files
        inputs, _ = self._specs()
        entry.update(unbuilt(job, backend, target, files, inputs))
        if "engine" in files:
            entry["usage"] = usage_text(backend.spec, target, files, inputs, job.deploy.batch_size)
        return Artifact.load(target), entry

    def export_job(self, backend: Backend, draft: Draft, folder: Path, *, with_twin: bool = True) -> ExportJob:
        """What the backend's exporter gets: the draft, and the float model as its twin."""
        options = {"batch_size": self.job.deploy.batch_size, "max_batch": self.job.deploy.max_batch}
        shared: dict[str, Any] = {"plan": draft.plan, "params": draft.params, "out_dir": folder, "options": options}
        shared["with_twin"] = with_twin
        if not draft.own:
            return ExportJob(captured=draft.captured, marked=self.marked, **shared)
        return ExportJob(
            captured=draft.captured,
            marked=marked_once(self.job, draft.captured, [backend], [draft.plan]),
            float_captured=self.captured,
            float_marked=self.marked,
            **shared,
        )

    def _specs(self) -> tuple[Any, Any]:
        return tensor_specs(self.captured, self.job.deploy.input_names, self.job.deploy.output_names)

    def _write(self, backend: Backend, staged: Path, files: Mapping[str, str], entry: Mapping[str, Any]) -> None:
        job, (inputs, outputs) = self.job, self._specs()
        write_artifact(
            staged,
            kind="quantized" if backend.simulated_only or "engine" not in files else "engine",
            stage=self.stage,
            files=files,
            inputs=inputs,
            outputs=outputs,
            parent=model_digest(self.captured),
            params={
                "backend": backend.name,
                "quantize": asdict(job.quantize),
                "deploy": asdict(job.deploy),
                **job.origin,
            },
            metrics={k: v for k, v in entry.items() if k in {"metrics", "gap", "parity", "size_bytes"}},
            versions=versions((*backend.spec.requires, *backend.spec.engine_requires)),
        )


def marked_once(job: PTQJob, captured: CapturedModel, backends: Sequence[Backend], plans: Iterable[QuantPlan]) -> Any:
    """The ONNX export with marks for all of ``plans`` of backends that read ONNX; None where none does."""
    readers = {b.name: b for b in backends if b.needs_onnx}
    if not readers:
        return None
    from razordeploy.backends.onnx_passes.export import export_marked

    return export_marked(
        captured,
        [plan for plan in plans if plan.backend in readers],
        opset=max(b.spec.opset for b in readers.values()),
        input_names=job.deploy.input_names,
        output_names=job.deploy.output_names,
    )
