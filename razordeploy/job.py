"""What a run is asked to do, what it tells while it works, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from razordeploy.artifact import Artifact
from razordeploy.config.qconfig import QuantizeConfig
from razordeploy.config.sections import DeployConfig
from razordeploy.data.batch import Batch
from razordeploy.errors import RazorDeployError
from razordeploy.quantization.calibrate import Interrupted

Batches = Callable[[], Iterable[Batch]]
"""Opens a data stream from its start."""


@dataclass(kw_only=True)
class Progress:
    """What a run tells while it works; the defaults say nothing."""

    stage: Callable[[str], None] = lambda text: None
    """A step begins."""
    advance: Callable[[int, int | None], None] = lambda done, total: None
    """Samples done in this step, and how many there are (None: not known)."""
    stop: Callable[[], bool] = lambda: False
    """Asked after every batch: True ends the run there, its statistics kept."""


@dataclass(kw_only=True)
class DeployJob:
    """What every run that makes engines is told."""

    backends: Sequence[str]
    work_dir: Path
    calibration: Batches
    """Unlabelled data; engines are held against the simulation on its first batch where there is no other."""
    evaluation: Batches | None = None
    """Labelled data; None: no accuracy is measured."""
    metric: Any = "top1"
    deploy: DeployConfig = field(default_factory=DeployConfig)
    data_fingerprint: str | None = None
    """Identity of the calibration data; None: statistics are not kept on disk."""
    threads: int = 0
    """Engine threads; 0: the engine's choice."""
    benchmark_seconds: float = 3.0
    """Time for the latency measurement of one backend; 0 skips it."""
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Where the model came from (recipe, overrides, checkpoint), for the manifest."""
    progress: Progress = field(default_factory=Progress)
    before_replacing: Callable[[], None] = lambda: None
    """Called whenever an engine of the work dir is about to be replaced: what describes the old ones has to go, or a
    run that ends there leaves an engine beside another one's figures."""


@dataclass(kw_only=True)
class PTQJob(DeployJob):
    """A float model, its data, and what is to become of it."""

    model: torch.nn.Module
    example_inputs: tuple[Any, ...]
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    calibration_samples: int | None = None
    """For the progress display only."""
    recover: bool = False
    """True: where an engine loses more than ``deploy.max_drop``, algorithms are tried until it does not."""
    finetune: Callable[..., Any] | None = None
    """Trains a draft for a short time, as ``recovery.Finetune``; None: there is nothing to train on."""


@dataclass(kw_only=True)
class PTQResult:
    """Artifacts by backend and the report's content; a failed backend has an entry in the report only."""

    artifacts: dict[str, Artifact]
    backends: dict[str, dict[str, Any]]
    """Per backend, the fields of ``report.json``."""
    warnings: list[str]
    errors: dict[str, RazorDeployError]


def begin(job: DeployJob, text: str, kept: str = "the calibration statistics are kept") -> None:
    """Begin a step, unless the run was asked to end.

    Raises:
        Interrupted: ``job.progress.stop`` asked for it.
    """
    if job.progress.stop():
        raise Interrupted(kept if job.data_fingerprint is not None else "nothing is kept")
    job.progress.stage(text)
