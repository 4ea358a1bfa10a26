"""mmengine hooks of supernets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.compress.nas.loops import SubnetModel, restore_choices, subnets_of
from razordeploy.data.sources import build_source
from razordeploy.errors import RecipeError
from razordeploy.subnet.files import write_mapping
from razordeploy.subnet.fix import export_fix_subnet
from razordeploy.train.evaluate import evaluate


class DumpSubnetHook(Hook):
    """Writes what a differentiable search would choose now as ``subnet_epoch_N.yaml``.

    Args:
        interval: epochs or iterations between two files.
        by_epoch: whether ``interval`` counts epochs.
    """

    def __init__(self, interval: int = 1, by_epoch: bool = True, out_dir: str | None = None) -> None:
        self.interval, self.by_epoch, self.out_dir = interval, by_epoch, out_dir

    def after_train_epoch(self, runner: Any) -> None:
        """Write the file of this epoch."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._dump(runner, f"subnet_epoch_{runner.epoch + 1}.yaml")

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Write the file of this iteration."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._dump(runner, f"subnet_iter_{runner.iter + 1}.yaml")

    def _dump(self, runner: Any, name: str) -> None:
        algorithm: Any = unwrap(runner.model)
        if not getattr(algorithm, "decides_subnet", False):
            raise RecipeError(
                f"DumpSubnetHook: {type(algorithm).__name__} does not choose a subnet while it trains",
                hint="search for one afterwards",
            )
        before = algorithm.mutator.current_choices
        choices = algorithm.decide()
        try:
            algorithm.mutator.set_choices(choices)
            subnet = export_fix_subnet(algorithm.architecture, "mutable")[0]
        finally:
            restore_choices(algorithm.mutator, before)
        if is_main_process():
            from pathlib import Path

            write_mapping(Path(self.out_dir or runner.work_dir) / name, subnet)


class DynamicEvaluationHook(Hook):
    """Top-1 of given subnets now and then, each sliced and recalibrated on a copy of its own.

    For recipes with a ``data`` section; with OpenMMLab's dataloaders ``SubnetValLoop`` does the same.

    Args:
        data: as of the recipe; its split ``test`` is evaluated on.
        interval: epochs between two evaluations; the last epoch is always evaluated.
        subnets: as of ``SubnetValLoop``.
        calibrate_sample_num: training samples for batch norms.
        batch_size: samples a step.
    """

    priority = "LOW"

    def __init__(
        self,
        data: Mapping[str, Any],
        interval: int = 1,
        subnets: Sequence[Any] = ("max", "min"),
        calibrate_sample_num: int = 4096,
        batch_size: int = 256,
    ) -> None:
        self.data, self.interval, self.subnets = dict(data), interval, tuple(subnets)
        self.calibrate_sample_num, self.batch_size = calibrate_sample_num, batch_size
        self.results: list[dict[str, float]] = []
        """Top-1 in percent by subnet, one entry an evaluation."""

    def after_train_epoch(self, runner: Any) -> None:
        """Evaluate, and log one line."""
        if not self.every_n_epochs(runner, self.interval) and runner.epoch + 1 != runner.max_epochs:
            return
        from torch.utils.data import DataLoader

        algorithm: Any = unwrap(runner.model)
        test = DataLoader(build_source(self.data, "test"), batch_size=self.batch_size)
        training, before = algorithm.training, algorithm.mutator.current_choices
        found: dict[str, float] = {}
        try:
            algorithm.eval()
            for name, choices in subnets_of(algorithm, self.subnets).items():
                algorithm.mutator.set_choices(choices)
                model = SubnetModel.calibrated(algorithm, runner.train_dataloader, self.calibrate_sample_num)
                found[name] = subnet_top1(model, test)
        finally:
            restore_choices(algorithm.mutator, before)
            algorithm.train(training)
        self.results.append(found)
        line = "  ".join(f"{name} {value:.2f}" for name, value in found.items())
        runner.logger.info(f"top-1 of subnets  {line}", extra={"screen": True})


def subnet_top1(model: SubnetModel, batches: Any) -> float:
    """Top-1 in percent of a plain classifier on batches (inputs, targets)."""
    import torch

    from razordeploy.data.batch import Batch

    def predict(inputs: Any) -> Any:
        with torch.no_grad():
            return model._run(model.model, [torch.as_tensor(inputs), torch.zeros(len(inputs))], "tensor").numpy()

    pairs = (Batch(inputs=(inputs,), target=target) for inputs, target in batches)
    return evaluate(predict, pairs)["top1"]


HOOKS: dict[str, type[Hook]] = {
    "DumpSubnetHook": DumpSubnetHook,
    # GML's name.
    "DynamicDistEvalHook": DynamicEvaluationHook,
    "DynamicEvaluationHook": DynamicEvaluationHook,
}
"""The hooks that a recipe may name."""
