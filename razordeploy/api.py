"""The Python face of the command line: a module and arrays are enough."""

from __future__ import annotations

import datetime
import inspect
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from razordeploy.artifact import Artifact
from razordeploy.backends.registry import check_names
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.config.sections import DeployConfig
from razordeploy.data.batch import Batch
from razordeploy.data.convert import as_tensor
from razordeploy.data.loader import from_iterable
from razordeploy.environment import cpu_flags, cpu_name, threads, versions
from razordeploy.errors import UsageError
from razordeploy.job import PTQJob, PTQResult
from razordeploy.pipeline import run_ptq
from razordeploy.report.schema import SCHEMA_VERSION, Report
from razordeploy.report.write import remove_report, write_report
from razordeploy.workdir import WorkDir


@overload
def ptq(
    model: torch.nn.Module | str | os.PathLike[str],
    calibration: Iterable[Any] | torch.Tensor,
    *,
    example_inputs: Any = ...,
    backend: str = ...,
    out_dir: str | os.PathLike[str],
    evaluation: Iterable[Any] | None = ...,
    metric: Any = ...,
    quantize: Mapping[str, Any] | None = ...,
    deploy: Mapping[str, Any] | None = ...,
    benchmark_seconds: float = ...,
    recover: bool = ...,
) -> Artifact: ...
@overload
def ptq(
    model: torch.nn.Module | str | os.PathLike[str],
    calibration: Iterable[Any] | torch.Tensor,
    *,
    example_inputs: Any = ...,
    backend: list[str] | tuple[str, ...],
    out_dir: str | os.PathLike[str],
    evaluation: Iterable[Any] | None = ...,
    metric: Any = ...,
    quantize: Mapping[str, Any] | None = ...,
    deploy: Mapping[str, Any] | None = ...,
    benchmark_seconds: float = ...,
    recover: bool = ...,
) -> dict[str, Artifact]: ...
def ptq(
    model: torch.nn.Module | str | os.PathLike[str],
    calibration: Iterable[Any] | torch.Tensor,
    *,
    example_inputs: Any = None,
    backend: str | Sequence[str] = "openvino",
    out_dir: str | os.PathLike[str],
    evaluation: Iterable[Any] | None = None,
    metric: Any = "top1",
    quantize: Mapping[str, Any] | None = None,
    deploy: Mapping[str, Any] | None = None,
    benchmark_seconds: float = 0.0,
    recover: bool = False,
) -> Artifact | dict[str, Artifact]:
    """Quantize a float model after training and write one engine per backend.

    Args:
        model: any ``nn.Module`` in float, which is left as it was; the path of a float ONNX file; or the folder of a
            sliced model, as ``razordeploy export`` writes it.
        calibration: an iterable of input tensors, tuples, dicts by argument name or ``(inputs, label)`` pairs, a
            mmengine or torch dataloader, or one tensor ``(N, ...)``. A generator is read once.
        example_inputs: a tuple of inputs (or one tensor) for the capture; an ONNX file that only leaves the batch
            open needs none.
        backend: one name, or a sequence of names; calibration runs once for all.
        out_dir: gets a folder per backend, ``report.json`` and ``report.html``.
        evaluation: labelled batches; None measures parity but no accuracy.
        metric: ``top1``, or a function ``(outputs, targets) -> dict``.
        quantize: as the recipe's section of that name.
        deploy: as the recipe's section of that name (``dynamic_batch``, ``max_drop``, names ...).
        benchmark_seconds: time for the latency comparison with the float engine; 0 skips it.
        recover: where an engine loses more than ``deploy["max_drop"]``, try algorithms until it does not; without
            ``evaluation`` where the cosine of its outputs to the float model's is under ``deploy["min_cosine"]``.

    Returns:
        The artifact, or ``{name: artifact}`` for a sequence of backends.

    Raises:
        RazorDeployError: model, data or options cannot be used, or a backend is missing; one line says why. The
            engines of other backends and the report are written first.
    """
    names = (backend,) if isinstance(backend, str) else tuple(backend)
    if not names:
        raise UsageError("no backend was asked for", hint="backend='openvino'")
    check_names(names)
    section = DeployConfig.parse(dict(deploy or {}), "ptq")
    name = Path(model).name if isinstance(model, (str, os.PathLike)) else type(model).__name__
    module, inputs, section = _opened(model, as_inputs(example_inputs), section)
    arguments = argument_names(module, len(inputs))
    asked = QuantizeConfig.parse(dict(quantize or {}), "ptq")
    keep_all = recover or bool(asked.algorithms) or asked.placement == "measured"
    with WorkDir(out_dir) as work:
        job = PTQJob(
            model=module,
            example_inputs=inputs,
            calibration=Stream(calibration, arguments, keep_all=keep_all),
            evaluation=None if evaluation is None else Stream(evaluation, arguments, keep_all=True),
            metric=metric,
            backends=names,
            work_dir=work.path,
            quantize=asked,
            recover=recover,
            deploy=section,
            benchmark_seconds=benchmark_seconds,
            before_replacing=lambda: remove_report(work.path),
        )
        result = run_ptq(job)
        write_report(build_report(result, names, model=name), work.path)
    for failed in names:
        if failed in result.errors:
            raise result.errors[failed]
    return result.artifacts[backend] if isinstance(backend, str) else result.artifacts


def as_inputs(example: Any) -> tuple[Any, ...] | None:
    """Example inputs as a tuple of tensors; None stays None."""
    if example is None:
        return None
    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    converted: tuple[Any, ...] = torch.utils._pytree.tree_map_only(
        np.ndarray, lambda x: as_tensor(x, "example_inputs"), inputs
    )
    return converted


def _opened(
    model: torch.nn.Module | str | os.PathLike[str], inputs: tuple[Any, ...] | None, deploy: DeployConfig
) -> tuple[torch.nn.Module, tuple[Any, ...], DeployConfig]:
    """The module, inputs to capture it with, and the names that an ONNX file has for what goes in and comes out."""
    if not isinstance(model, (str, os.PathLike)):
        if inputs is None:
            raise UsageError("a torch module needs example_inputs", hint="example_inputs=(x,)")
        return model, inputs, deploy
    from razordeploy.capture.onnx_import.file import is_onnx
    from razordeploy.capture.onnx_import.load import import_onnx

    if Path(model).is_dir():
        from razordeploy.sliced import example_inputs_of, load_model

        return load_model(model), inputs or example_inputs_of(model), deploy
    if not is_onnx(model):
        raise UsageError(
            f"expected a torch.nn.Module, the path of an .onnx file or the folder of a sliced model, got '{model}'"
        )
    module, inputs = import_onnx(model, inputs=inputs, shapes=deploy.input_shapes)
    input_names = deploy.input_names or module.input_names
    output_names = deploy.output_names or module.output_names
    return module, inputs, replace(deploy, input_names=input_names, output_names=output_names)


def build_report(result: PTQResult, backends: Sequence[str], *, model: str, **fields: Any) -> Report:
    """Put a run's results into the structure of ``report.json``."""
    report: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "recipe": None,
        "model": model,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "environment": {
            "versions": versions(("openvino", "onnxruntime", "tensorrt", "onnx", "torchao", "mmengine", "mmcls")),
            "cpu": cpu_name(),
            "cpu_flags": cpu_flags(),
            "os": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
            "threads": threads(),
        },
        **_tensors(result),
        "warnings": result.warnings,
        "backends": {name: result.backends[name] for name in backends},
        **fields,
    }
    return report  # type: ignore[return-value]


def _tensors(result: PTQResult) -> dict[str, Any]:
    """Inputs and outputs, the same for every backend."""
    made = next(iter(result.artifacts.values()), None)
    if made is None:
        return {}
    return {"inputs": [asdict(spec) for spec in made.inputs], "outputs": [asdict(spec) for spec in made.outputs]}


def argument_names(model: torch.nn.Module, inputs: int) -> tuple[str, ...] | None:
    """Names of the model's first ``inputs`` arguments, by which dicts are read; None where order alone tells."""
    if inputs < 2 or not isinstance(model, torch.nn.Module):
        return None
    names = getattr(model, "input_names", None)
    if isinstance(names, tuple) and len(names) == inputs:
        return names
    parameters = list(inspect.signature(model.forward).parameters.values())[:inputs]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return tuple(named) if len(named) == inputs else None


class Stream:
    """Opens the caller's data as often as the pipeline asks; of a generator only the first batch can be had again."""

    def __init__(self, data: Any, arguments: Sequence[str] | None, *, keep_all: bool = False) -> None:
        self.data = data
        self.arguments = arguments
        self.once = isinstance(data, Iterator)
        self.keep_all = keep_all
        self.seen: list[Batch] | None = None

    def __call__(self) -> Iterator[Batch]:
        """The batches, from the start."""
        if not self.once:
            yield from from_iterable(self.data, input_names=self.arguments)
            return
        if self.seen is not None:
            yield from self.seen
            return
        self.seen = []
        for batch in from_iterable(self.data, input_names=self.arguments):
            if self.keep_all or not self.seen:
                self.seen.append(batch)
            yield batch
