"""mmengine hooks of a pruning run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process, master_only
from mmengine.hooks import Hook

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm
from razordeploy.compress.pruning.algorithms.dmcp import DMCP
from razordeploy.errors import ModelError, RecipeError, nearest
from razordeploy.subnet.files import write_mapping

RESOURCES = {"flops": "macs", "macs": "macs", "params": "params", "activations": "activations"}
_DRAWS = 10_000


class PruningStructureHook(Hook):
    """Logs what every unit keeps, and the range of its importance.

    Args:
        by_epoch: count epochs; False: iterations.
        interval: from one log to the next.
    """

    def __init__(self, by_epoch: bool = True, interval: int = 1) -> None:
        self.by_epoch, self.interval = by_epoch, _positive(interval, type(self).__name__)

    def after_train_epoch(self, runner: Any) -> None:
        """Log, if epochs count."""
        if self.by_epoch and (runner.epoch + 1) % self.interval == 0:
            self._log(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Log, if iterations count."""
        if not self.by_epoch and (runner.iter + 1) % self.interval == 0:
            self._log(runner)

    @master_only
    def _log(self, runner: Any) -> None:
        mutator = pruning_algorithm(runner, self).mutator
        runner.logger.info(f"structure: {json.dumps(mutator.choice_template, indent=1)}")
        for unit in mutator.mutable_units:
            if hasattr(unit, "importance"):
                kept = unit.importance()[unit.mask.cpu()]
                runner.logger.info(f"importance of {unit.name}: {float(kept.min()):.4g} to {float(kept.max()):.4g}")


class ResourceInfoHook(Hook):
    """Logs what the current structure costs, and saves a checkpoint when it falls below a share of the whole.

    ``flops_0.50.pth`` is the algorithm's checkpoint when multiply-adds first are below 50 %; ``GroupFisherSubModel``
    reads it.

    Args:
        demo_input: taken for mmrazor's sake: the mutator's ``demo_input`` is what is counted on.
        interval: iterations from one look to the next.
        resource_type: ``flops`` (multiply-adds), ``params`` or ``activations``.
        save_ckpt_thr: shares, each of which saves one checkpoint.
        early_stop: stop pruning, and the run at the end of its epoch, once all are saved.
    """

    def __init__(
        self,
        demo_input: Any = None,
        interval: int = 10,
        resource_type: str = "flops",
        save_ckpt_thr: Any = (0.5,),
        early_stop: bool = True,
    ) -> None:
        if resource_type not in RESOURCES:
            hint = nearest(resource_type, RESOURCES)
            raise RecipeError(f"ResourceInfoHook: unknown resource_type '{resource_type}'", hint=hint)
        if not all(isinstance(share, int | float) and 0 < share <= 1 for share in save_ckpt_thr):
            raise RecipeError(f"ResourceInfoHook: expected save_ckpt_thr above 0 and up to 1, got {save_ckpt_thr}")
        self.interval = _positive(interval, type(self).__name__)
        self.resource_type = resource_type
        self.early_stop = early_stop
        self.save_ckpt_thr = sorted(save_ckpt_thr, reverse=True)
        self.waiting = list(self.save_ckpt_thr)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look, and save; at the first look of a resumed run, what was saved before is not saved again."""
        if (runner.iter + 1) % self.interval or not self.waiting:
            return
        algorithm = pruning_algorithm(runner, self)
        share = self.share(algorithm)
        while self.waiting and share < self.waiting[0]:
            path = Path(runner.work_dir) / f"{self.resource_type}_{self.waiting.pop(0):.2f}.pth"
            if is_main_process() and not path.exists():
                torch.save({"state_dict": {k: v.detach().cpu() for k, v in algorithm.state_dict().items()}}, path)
                runner.logger.info(f"{self.resource_type} are {share:.1%} of the whole: wrote {path}")
        if self.early_stop and not self.waiting:
            runner.train_loop.stop_training = True
            if hasattr(algorithm, "pruning_stopped"):
                algorithm.pruning_stopped = True

    def before_train(self, runner: Any) -> None:
        """Check that there is something to count; a new run forgets the checkpoints of the one before."""
        algorithm = pruning_algorithm(runner, self)
        self.waiting = list(self.save_ckpt_thr)
        if runner.iter == 0 and is_main_process():
            for share in self.save_ckpt_thr:
                (Path(runner.work_dir) / f"{self.resource_type}_{share:.2f}.pth").unlink(missing_ok=True)
        runner.logger.info(f"whole: {getattr(algorithm.costs.whole, RESOURCES[self.resource_type])}")

    @master_only
    def after_train_epoch(self, runner: Any) -> None:
        """Log the share."""
        share = self.share(pruning_algorithm(runner, self))
        runner.logger.info(f"{self.resource_type} are {share:.1%} of the whole")

    def share(self, algorithm: PruningAlgorithm) -> float:
        """What the current structure costs, as a share of the whole."""
        field = RESOURCES[self.resource_type]
        return float(getattr(algorithm.costs.now(), field) / getattr(algorithm.costs.whole, field))


class DMCPSubnetHook(Hook):
    """Writes subnets drawn from a trained DMCP model, and its mean, to ``model_sample`` in the work dir.

    Args:
        subnet_sample_num: how many are drawn; each costs what was asked for, within ``tolerance``.
        tolerance: share of ``target_flops``.
    """

    priority = "VERY_LOW"

    def __init__(self, subnet_sample_num: int = 10, tolerance: float = 0.02) -> None:
        self.subnet_sample_num = subnet_sample_num
        self.tolerance = tolerance

    def after_train(self, runner: Any) -> None:
        """Draw; a process that never comes near the target gives fewer, and the log says so."""
        algorithm = pruning_algorithm(runner, self)
        if not isinstance(algorithm, DMCP):
            raise RecipeError(f"DMCPSubnetHook: {type(algorithm).__name__} has no architecture parameters")
        folder = Path(runner.work_dir) / "model_sample"
        if is_main_process():
            folder.mkdir(exist_ok=True)
        found = 0
        for _ in range(_DRAWS):
            if found == self.subnet_sample_num:
                break
            algorithm.set_subnet("direct")
            macs = algorithm.costs.mega_macs(algorithm.costs.now())
            if abs(macs - algorithm.target_flops) <= self.tolerance * algorithm.target_flops:
                found += 1
                self._write(algorithm, folder / f"subnet_{found}.yaml")
        if found < self.subnet_sample_num:
            runner.logger.warning(f"{found} of {self.subnet_sample_num} subnets are within {self.tolerance:.0%}")
        algorithm.set_subnet("expected")
        self._write(algorithm, folder / "expected_ch.yaml")

    @master_only
    def _write(self, algorithm: DMCP, path: Path) -> None:
        write_mapping(path, {name: int(choice) for name, choice in algorithm.mutator.current_choices.items()})


def pruning_algorithm(runner: Any, hook: Hook) -> Any:
    """The pruning algorithm that ``runner`` trains.

    Raises:
        RecipeError: it trains something else.
    """
    algorithm = unwrap(runner.model)
    if not isinstance(algorithm, PruningAlgorithm):
        raise RecipeError(f"{type(hook).__name__}: {type(algorithm).__name__} is no pruning algorithm")
    return algorithm


def _positive(value: int, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ModelError(f"{name}: expected an interval of at least 1, got {value!r}")
    return value


HOOKS: dict[str, type[Hook]] = {
    "DMCPSubnetHook": DMCPSubnetHook,
    "PruningStructureHook": PruningStructureHook,
    "ResourceInfoHook": ResourceInfoHook,
}
