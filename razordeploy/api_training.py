"""The Python face of ``razordeploy qat``."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from razordeploy.api import Stream, argument_names, as_inputs, build_report
from razordeploy.artifact import Artifact
from razordeploy.backends.registry import check_names
from razordeploy.config.qat import QATConfig
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.config.sections import DeployConfig
from razordeploy.data.base import Source
from razordeploy.data.batch import Batch
from razordeploy.data.loader import batches, from_iterable
from razordeploy.errors import DataError, UsageError
from razordeploy.qat_pipeline import QATJob, run_qat
from razordeploy.report.write import remove_report, write_report
from razordeploy.workdir import WorkDir

CALIBRATION_SAMPLES = 300


@overload
def qat(
    model: torch.nn.Module,
    training: Any,
    *,
    example_inputs: Any,
    backend: str = ...,
    out_dir: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = ...,
    loss: Callable[[Any, Any], Any] | None = ...,
    calibration: Iterable[Any] | Tensor | None = ...,
    evaluation: Iterable[Any] | None = ...,
    metric: Any = ...,
    quantize: Mapping[str, Any] | None = ...,
    deploy: Mapping[str, Any] | None = ...,
    benchmark_seconds: float = ...,
    seed: int = ...,
) -> Artifact: ...
@overload
def qat(
    model: torch.nn.Module,
    training: Any,
    *,
    example_inputs: Any,
    backend: list[str] | tuple[str, ...],
    out_dir: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = ...,
    loss: Callable[[Any, Any], Any] | None = ...,
    calibration: Iterable[Any] | Tensor | None = ...,
    evaluation: Iterable[Any] | None = ...,
    metric: Any = ...,
    quantize: Mapping[str, Any] | None = ...,
    deploy: Mapping[str, Any] | None = ...,
    benchmark_seconds: float = ...,
    seed: int = ...,
) -> dict[str, Artifact]: ...
def qat(
    model: torch.nn.Module,
    training: Any,
    *,
    example_inputs: Any,
    backend: str | Sequence[str] = "openvino",
    out_dir: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    calibration: Iterable[Any] | Tensor | None = None,
    evaluation: Iterable[Any] | None = None,
    metric: Any = "top1",
    quantize: Mapping[str, Any] | None = None,
    deploy: Mapping[str, Any] | None = None,
    benchmark_seconds: float = 0.0,
    seed: int = 0,
) -> Artifact | dict[str, Artifact]:
    """Train a float model on the grids of each backend and write one engine per backend.

    Args:
        model: any ``nn.Module`` in float, which is left as it was.
        training: labelled samples: a map-style ``Dataset`` of (inputs, label), a torch ``DataLoader`` of such batches,
            or any iterable of (inputs, labels) batches, which is read into memory once.
        example_inputs: a tuple of inputs (or one tensor) for the capture.
        backend: one name, or a sequence of names; each is trained for itself.
        out_dir: gets a folder per backend, ``report.json`` and ``report.html``.
        settings: as the recipe's ``qat`` section: ``epochs``, ``lr``, ``batch_size``, ``distill`` ...
        loss: ``(outputs, targets) -> loss``; None: cross entropy on logits (N, classes).
        calibration: where the scales start, as for ``ptq``; None: some of the training samples.
        evaluation: labelled batches; None measures parity but no accuracy.
        metric: ``top1``, or a function ``(outputs, targets) -> dict``.
        quantize: as the recipe's section of that name.
        deploy: as the recipe's section of that name.
        benchmark_seconds: time for the latency comparison with the float engine; 0 skips it.
        seed: of the order of the samples.

    Returns:
        The artifact, or ``{name: artifact}`` for a sequence of backends.

    Raises:
        RazorDeployError: model, data or options cannot be used, or a backend is missing; one line says why.
    """
    from razordeploy.compress.algorithm.build import build
    from razordeploy.compress.distill.losses.table import LOSSES
    from razordeploy.quantization.qat.train import Training

    names = (backend,) if isinstance(backend, str) else tuple(backend)
    if not names:
        raise UsageError("no backend was asked for", hint="backend='openvino'")
    check_names(names)
    inputs = as_inputs(example_inputs)
    if inputs is None:
        raise UsageError("a torch module needs example_inputs", hint="example_inputs=(x,)")
    arguments = argument_names(model, len(inputs))
    config = QATConfig.parse(dict(settings or {}), "qat")
    source = _source(training, arguments)
    with WorkDir(out_dir) as work:
        job = QATJob(
            model=model,
            example_inputs=inputs,
            calibration=_calibration(source, arguments, seed)
            if calibration is None
            else Stream(calibration, arguments),
            evaluation=None if evaluation is None else Stream(evaluation, arguments, keep_all=True),
            metric=metric,
            backends=names,
            work_dir=work.path,
            quantize=QuantizeConfig.parse(dict(quantize or {}), "qat"),
            deploy=DeployConfig.parse(dict(deploy or {}), "qat"),
            benchmark_seconds=benchmark_seconds,
            before_replacing=lambda: remove_report(work.path),
            training=Training(
                config=config,
                source=source,
                losses=loss,
                teach=None if config.distill is None else build(config.distill, LOSSES, "distill"),
                seed=seed,
            ),
        )
        result = run_qat(job)
        write_report(build_report(result, names, model=type(model).__name__), Path(work.path))
    for failed in names:
        if failed in result.errors:
            raise result.errors[failed]
    return result.artifacts[backend] if isinstance(backend, str) else result.artifacts


class _Samples(Source):
    """Labelled samples in memory."""

    def __init__(self, inputs: tuple[Tensor, ...], labels: Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        sample = tuple(x[index] for x in self.inputs)
        label = self.labels[index]
        return (sample[0] if len(sample) == 1 else sample), (int(label) if label.ndim == 0 else label)

    def describe(self) -> str:
        """How many."""
        return f"{len(self):,} training samples in memory"

    def fingerprint(self) -> str:
        """Hash of the values."""
        digest = hashlib.sha256()
        for x in (*self.inputs, self.labels):
            digest.update(x.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def _source(training: Any, arguments: Sequence[str] | None) -> Any:
    if isinstance(training, Source | DataLoader):
        return training
    if isinstance(training, torch.utils.data.Dataset) and hasattr(training, "__len__"):
        return training
    found: list[Batch] = list(from_iterable(training, input_names=arguments))
    if not found or any(batch.target is None for batch in found):
        what = "no batch" if not found else "a batch without labels"
        raise DataError(f"training: expected batches (inputs, labels), got {what}", hint="rd.ptq needs no labels")
    inputs = tuple(torch.cat(column) for column in zip(*(b.inputs for b in found), strict=True))
    return _Samples(inputs, torch.cat([b.target for b in found if b.target is not None]))


def _calibration(source: Any, arguments: Sequence[str] | None, seed: int) -> Callable[[], Iterator[Batch]]:
    def stream() -> Iterator[Batch]:
        if isinstance(source, Source):
            yield from batches(source, 32, limit=CALIBRATION_SAMPLES, seed=seed, shuffle=True)
            return
        left = CALIBRATION_SAMPLES
        for batch in islice(from_iterable(source, input_names=arguments), CALIBRATION_SAMPLES):
            yield batch.head(left)
            left -= len(batch)
            if left <= 0:
                return

    return stream
