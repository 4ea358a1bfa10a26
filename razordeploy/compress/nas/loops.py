"""mmengine loops of supernets."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dataset import DefaultSampler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, ValLoop, autocast
from torch import nn
from torch.utils.data import DataLoader, Subset

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.compress.nas.algorithms.darts import TwoBatches
from razordeploy.compress.nas.greedy_loop import GreedySamplerTrainLoop
from razordeploy.compress.nas.recalibrate import calibrated_subnet
from razordeploy.errors import RecipeError
from razordeploy.subnet.files import read_mapping


class _ArchitectureBatches:
    """A second dataloader without an end; without a config for it, the second half of the data."""

    def __init__(self, runner: Any, loader: DataLoader[Any], config: Any) -> None:
        if config is not None:
            self.loader = runner.build_dataloader(config) if isinstance(config, Mapping) else config
            self.first = loader
            return
        count = len(loader.dataset)  # type: ignore[arg-type]
        if count < 2:
            raise RecipeError(f"DARTS: expected data to halve, got {count} samples")
        order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
        halves = [sorted(order[: count // 2]), sorted(order[count // 2 :])]
        self.first, self.loader = (_loader_of(loader, Subset(loader.dataset, half)) for half in halves)

    def __iter__(self) -> Iterator[Any]:
        epoch = 0
        while True:
            sampler = self.loader.sampler
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
            yield from self.loader
            epoch += 1


def _loader_of(loader: DataLoader[Any], part: Subset[Any]) -> DataLoader[Any]:
    return DataLoader(
        part,
        batch_size=min(loader.batch_size or 1, len(part)),
        sampler=DefaultSampler(part, shuffle=True),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        persistent_workers=loader.num_workers > 0,
        drop_last=True,
    )


class DartsEpochBasedTrainLoop(EpochBasedTrainLoop):
    """Epochs in which every batch of the weights comes with one for the architecture parameters.

    Args:
        runner: mmengine's.
        dataloader: batches of the weights.
        mutator_dataloader: those of the architecture parameters; None: half of the data each (DARTS, section 3.1).
        max_epochs: epochs.
        val_begin: as of mmengine's loop, like ``val_interval``.
        val_interval: see there.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_epochs: int,
        mutator_dataloader: Any = None,
        val_begin: int = 1,
        val_interval: int = 1,
    ) -> None:
        if isinstance(dataloader, Mapping):
            dataloader = runner.build_dataloader(dataloader)
        batches = _ArchitectureBatches(runner, dataloader, mutator_dataloader)
        super().__init__(runner, batches.first, max_epochs, val_begin, val_interval)
        self.mutator_dataloader = batches.loader
        self._batches = iter(batches)

    def run_iter(self, idx: int, data_batch: Any) -> None:
        """One step on two batches."""
        super().run_iter(idx, TwoBatches(data_batch, next(self._batches)))


class DartsIterBasedTrainLoop(IterBasedTrainLoop):
    """The same by iterations.

    Args:
        runner: mmengine's.
        dataloader: batches of the weights.
        mutator_dataloader: as of ``DartsEpochBasedTrainLoop``.
        max_iters: iterations.
        val_begin: as of mmengine's loop, like ``val_interval``.
        val_interval: see there.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        mutator_dataloader: Any = None,
        val_begin: int = 1,
        val_interval: int = 1000,
    ) -> None:
        if isinstance(dataloader, Mapping):
            dataloader = runner.build_dataloader(dataloader)
        batches = _ArchitectureBatches(runner, dataloader, mutator_dataloader)
        super().__init__(runner, batches.first, max_iters, val_begin, val_interval)
        self.mutator_dataloader = batches.loader
        self._batches = iter(batches)

    def run_iter(self, data_batch: Any) -> None:
        """One step on two batches."""
        super().run_iter(TwoBatches(data_batch, next(self._batches)))


class SubnetValLoop(ValLoop):
    """Validates subnets, each sliced and recalibrated on a copy of its own; the supernet stays as it is.

    Metrics are called ``max_subnet.*``, ``min_subnet.*``, ``randomN_subnet.*`` and, of files, by the file's stem.

    Args:
        runner: mmengine's.
        dataloader: validation data.
        evaluator: of the predictions.
        fp16: mixed precision.
        evaluate_fixed_subnet: validate the model as it stands, a subnet already.
        calibrate_sample_num: training samples for batch norms; 0: the statistics stay.
        subnets: ``max``, ``min``, ``random``, subnet files, or mappings of choices.
        calibrate_dataloader: where they come from; None: the training data.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        fp16: bool = False,
        evaluate_fixed_subnet: bool = False,
        calibrate_sample_num: int = 4096,
        subnets: Sequence[Any] = ("max", "min"),
        calibrate_dataloader: Any = None,
    ) -> None:
        super().__init__(runner, dataloader, evaluator, fp16)
        self.evaluate_fixed_subnet = evaluate_fixed_subnet
        self.calibrate_sample_num = calibrate_sample_num
        self.subnets = tuple(subnets)
        self._calibration = calibrate_dataloader
        algorithm: Any = unwrap(runner.model)
        if not evaluate_fixed_subnet and getattr(algorithm, "mutator", None) is None:
            raise RecipeError(
                f"SubnetValLoop: {type(algorithm).__name__} has no mutator, so no subnets",
                hint="evaluate_fixed_subnet=True validates a model that is a subnet already",
            )

    def run(self) -> dict[str, float]:
        """One pass over the validation data with each subnet."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        algorithm: Any = unwrap(self.runner.model)
        algorithm.eval()
        if self.evaluate_fixed_subnet:
            metrics = self._validate(algorithm)
        else:
            metrics = {}
            before = algorithm.mutator.current_choices
            try:
                for name, choices in subnets_of(algorithm, self.subnets).items():
                    algorithm.mutator.set_choices(choices)
                    found = self._validate(self._calibrated(algorithm))
                    metrics.update({f"{name}_subnet.{key}": value for key, value in found.items()})
            finally:
                restore_choices(algorithm.mutator, before)
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics

    def _calibrated(self, algorithm: Any) -> Any:
        if not self.calibrate_sample_num:
            from razordeploy.subnet.fix import export_fix_subnet

            return SubnetModel(algorithm, export_fix_subnet(algorithm.architecture, "mutable", slice_weight=True)[1])
        loader = self._calibration or self.runner.train_dataloader
        if isinstance(loader, Mapping):
            loader = self._calibration = self.runner.build_dataloader(loader)
        if not isinstance(loader, DataLoader):
            loader = self.runner.train_dataloader
        return SubnetModel.calibrated(algorithm, loader, self.calibrate_sample_num)

    @torch.no_grad()
    def _validate(self, model: Any) -> dict[str, float]:
        for index, data in enumerate(self.dataloader):
            self.runner.call_hook("before_val_iter", batch_idx=index, data_batch=data)
            with autocast(enabled=self.fp16):
                outputs = model.val_step(data)
            self.evaluator.process(data_samples=outputs, data_batch=data)
            self.runner.call_hook("after_val_iter", batch_idx=index, data_batch=data, outputs=outputs)
        found: dict[str, float] = self.evaluator.evaluate(len(self.dataloader.dataset))
        return found


class SubnetModel:
    """A static subnet behind the preprocessor of its algorithm.

    Args:
        algorithm: the supernet's.
        model: the subnet.
    """

    def __init__(self, algorithm: Any, model: nn.Module | None) -> None:
        self.preprocess = algorithm.data_preprocessor
        self.model: Any = model
        self.subnet: dict[str, Any] = {}

    @classmethod
    def calibrated(cls, algorithm: Any, batches: Any, num_samples: int | None) -> SubnetModel:
        """The subnet that ``algorithm`` has chosen, its batch norms calibrated on ``batches`` of its data."""
        found = cls(algorithm, None)
        found.subnet, found.model = calibrated_subnet(
            algorithm.architecture, batches, num_samples=num_samples, forward=found._tensor
        )
        return found

    def val_step(self, data: Any) -> Any:
        """Predictions of one batch of the dataset."""
        return self._run(self.model, data, "predict")

    def _tensor(self, model: nn.Module, data: Any) -> Any:
        return self._run(model, data, "tensor")

    def _run(self, model: Any, data: Any, mode: str) -> Any:
        # A preprocessor may change the batch in place.
        batch = self.preprocess(copy.copy(data), False)
        return model(**batch, mode=mode) if isinstance(batch, dict) else model(*batch, mode=mode)


def subnets_of(algorithm: Any, wanted: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """Choices by name of the subnets that a loop or hook is asked for.

    Raises:
        RecipeError: an entry is neither a kind, nor a file, nor a mapping.
        ModelError: a file cannot be read.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for index, entry in enumerate(wanted):
        if entry in ("max", "min"):
            found[entry] = algorithm.mutator.sample_choices(entry)
        elif entry == "random":
            found[f"random{index}"] = algorithm.mutator.sample_choices()
        elif isinstance(entry, str | Path):
            found[Path(entry).stem] = _chosen(read_mapping(entry))
        elif isinstance(entry, Mapping):
            found[f"subnet{index}"] = _chosen(entry)
        else:
            raise RecipeError(f"expected 'max', 'min', 'random', a subnet file or choices, got {entry!r}")
    return found


def _chosen(content: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v["chosen"] if isinstance(v, Mapping) and "chosen" in v else v for k, v in content.items()}


def restore_choices(mutator: Any, choices: Mapping[str, Any]) -> None:
    """Set the choices again, None among them: where nothing was chosen, all candidates run."""
    for name, members in mutator.search_groups.items():
        for member in members:
            member.current_choice = choices[name]


class EvolutionSearchLoop:
    """mmrazor's search as a loop of its Runner; here a search is a command, whose candidates run in parallel.

    Args:
        runner: mmengine's.
        options: of mmrazor's loop; ``razordeploy search`` reads them from the config.

    Raises:
        RecipeError: always; says the command.
    """

    def __init__(self, runner: Any, *args: Any, **options: Any) -> None:
        file = getattr(runner.cfg, "filename", None) or "CONFIG"
        raise RecipeError("a Runner does not search", hint=f"razordeploy search {file}")


LOOPS: dict[str, type] = {
    "EvolutionSearchLoop": EvolutionSearchLoop,
    "DartsEpochBasedTrainLoop": DartsEpochBasedTrainLoop,
    "DartsIterBasedTrainLoop": DartsIterBasedTrainLoop,
    "GreedySamplerTrainLoop": GreedySamplerTrainLoop,
    "SubnetValLoop": SubnetValLoop,
}
"""The loops that a recipe may name."""
