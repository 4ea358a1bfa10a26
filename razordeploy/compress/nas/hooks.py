"""mmengine hooks of supernets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.compress.algorithm.build_model import current_folder
from razordeploy.compress.nas.algorithms.darts import kept_statistics
from razordeploy.compress.nas.loops import SubnetModel, restore_choices, subnets_of
from razordeploy.data.sources import build_source
from razordeploy.errors import RecipeError
from razordeploy.subnet.agree import agree
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
        self.folder = current_folder()
        self.calibrate_sample_num, self.batch_size = calibrate_sample_num, batch_size
        self.results: list[dict[str, float]] = []
        """Top-1 in percent by subnet, one entry an evaluation."""

    def after_train_epoch(self, runner: Any) -> None:
        """Evaluate, and log one line."""
        if not self.every_n_epochs(runner, self.interval) and runner.epoch + 1 != runner.max_epochs:
            return
        from torch.utils.data import DataLoader

        algorithm: Any = unwrap(runner.model)
        test = DataLoader(build_source(self.data, "test", self.folder), batch_size=self.batch_size)
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


class EstimateResourcesHook(Hook):
    """Logs what the model costs now and then: multiply-accumulates of one forward pass, and parameters.

    Args:
        interval: epochs or iterations between two lines.
        by_epoch: whether ``interval`` counts epochs.
        estimator_cfg: ``dict(input_shape=(1, 3, 224, 224))``, the batch first.
    """

    priority = "LOW"

    def __init__(
        self, interval: int = 1, by_epoch: bool = True, estimator_cfg: Mapping[str, Any] | None = None
    ) -> None:
        self.interval, self.by_epoch = interval, by_epoch
        self.input_shape = tuple((estimator_cfg or {}).get("input_shape", (1, 3, 224, 224)))
        self.results: list[dict[str, float]] = []
        """``macs`` and ``params`` in millions, one entry a line."""

    def after_train_epoch(self, runner: Any) -> None:
        """Log a line of this epoch."""
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._log(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log a line of this iteration."""
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._log(runner)

    def _log(self, runner: Any) -> None:
        import torch
        from torch.utils.flop_counter import FlopCounterMode

        model: Any = getattr(unwrap(runner.model), "architecture", unwrap(runner.model))
        training, parameter = model.training, next(model.parameters())
        try:
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                model.eval()(torch.zeros(self.input_shape, device=parameter.device))
        finally:
            model.train(training)
        found = {"macs": counter.get_total_flops() / 2e6, "params": sum(p.numel() for p in model.parameters()) / 1e6}
        self.results.append(found)
        line = f"resources  {found['macs']:.4g} M multiply-accumulates  {found['params']:.4g} M parameters"
        runner.logger.info(line, extra={"screen": True})


class GreedySamplerHook(Hook):
    """Lets SPOS train good paths more and more often (GreedyNAS, You et al. 2020, arXiv 2003.11236).

    Now and then fresh paths are scored by the loss of the next batch, before it is trained on, and the best join a
    pool from which steps draw with a probability that rises. A run that is resumed begins with an empty pool.

    Args:
        interval: iterations between two scorings.
        num_samples: paths that are scored at a time.
        top_k: how many of these join the pool.
        num_candidates: most paths in the pool.
        prob_schedule: ``linear``, ``exp`` or ``cosine``: the way from ``init_prob`` to ``max_prob``.
        schedule_start_iter: iteration from which the probability rises.
        schedule_end_iter: iteration at which it arrives.
        init_prob: before.
        max_prob: after.
    """

    priority = "LOW"

    def __init__(
        self,
        interval: int = 100,
        num_samples: int = 10,
        top_k: int = 5,
        num_candidates: int = 1000,
        prob_schedule: str = "linear",
        schedule_start_iter: int = 10_000,
        schedule_end_iter: int = 144_360,
        init_prob: float = 0.0,
        max_prob: float = 0.8,
    ) -> None:
        self.interval = interval
        self.options: dict[str, Any] = {
            "num_samples": num_samples,
            "top_k": top_k,
            "pool_size": num_candidates,
            "prob_schedule": prob_schedule,
            "schedule_start": schedule_start_iter,
            "schedule_end": schedule_end_iter,
            "init_prob": init_prob,
            "max_prob": max_prob,
        }
        self.sampler: Any = None

    def before_train(self, runner: Any) -> None:
        """Begin with an empty pool.

        Raises:
            RecipeError: the algorithm does not train one path a step.
        """
        from razordeploy.compress.nas.algorithms.spos import SPOS
        from razordeploy.compress.nas.search.limits import Bounded
        from razordeploy.compress.nas.search.sampler import GreedySampler
        from razordeploy.compress.nas.search.space import SearchSpace

        algorithm: Any = unwrap(runner.model)
        if not isinstance(algorithm, SPOS):
            raise RecipeError(
                f"GreedySamplerHook: {type(algorithm).__name__} does not train one path a step", hint="use SPOS"
            )
        bounded = Bounded(SearchSpace.of_mutator(algorithm.mutator))
        self.sampler = GreedySampler(bounded, seed=runner.seed or 0, **self.options)
        algorithm.sampler = lambda: agree(lambda: self.sampler.sample(runner.iter))

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Score fresh paths where it is time."""
        if runner.iter % self.interval == 0:
            algorithm: Any = unwrap(runner.model)
            self.sampler.refresh(lambda paths: [path_score(algorithm, path, data_batch) for path in paths])

    def after_train(self, runner: Any) -> None:
        """Leave the algorithm as it was."""
        algorithm: Any = unwrap(runner.model)
        algorithm.sampler = None


def path_score(algorithm: Any, path: Mapping[str, Any], data: Any) -> float:
    """Minus the loss of a path on a batch, by the batch's own statistics, which leave no trace."""
    import torch

    algorithm.mutator.set_choices(path)
    with kept_statistics(algorithm.architecture), torch.no_grad():
        batch = algorithm.data_preprocessor(data, True)
        inputs, samples = (
            (batch["inputs"], batch.get("data_samples", batch.get("targets"))) if isinstance(batch, dict) else batch
        )
        total, _ = algorithm.parse_losses(algorithm.architecture(inputs, samples, mode="loss"))
    return -float(total)


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
    "EstimateResourcesHook": EstimateResourcesHook,
    "GreedySamplerHook": GreedySamplerHook,
}
"""The hooks that a recipe may name."""
