"""Loops that validate what is pruned, or look for what to prune."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.runner import ValLoop

from razordeploy.compress.algorithm.base import BaseAlgorithm, unwrap
from razordeploy.compress.nas.recalibrate import recalibrate
from razordeploy.compress.nas.search.greedy import GreedySearch
from razordeploy.compress.nas.search.limits import Bounded
from razordeploy.compress.nas.search.scored import Scored
from razordeploy.compress.nas.search.space import SearchSpace
from razordeploy.compress.pruning.algorithms.autoslim import AutoSlim
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm
from razordeploy.compress.pruning.algorithms.slimmable import SlimmableNetwork
from razordeploy.compress.pruning.result import SUBNET, SUBNET_WEIGHTS, sliced
from razordeploy.errors import ModelError, RecipeError, nearest
from razordeploy.subnet.files import read_mapping, write_mapping
from razordeploy.train.runner import save_state_dict


class _Loop(ValLoop):
    """A validation loop of one kind of algorithm."""

    needs: type[PruningAlgorithm] = PruningAlgorithm

    @property
    def algorithm(self) -> Any:
        """The algorithm that the runner has.

        Raises:
            RecipeError: it is of another kind.
        """
        found = unwrap(self.runner.model)
        if not isinstance(found, self.needs):
            raise RecipeError(f"{type(self).__name__} needs {self.needs.__name__}, got {type(found).__name__}")
        return found

    @torch.no_grad()
    def score(self, model: Any) -> dict[str, float]:
        """Metrics of ``model`` on the validation data."""
        for data in self.dataloader:
            self.evaluator.process(data_samples=model.val_step(data), data_batch=data)
        found: dict[str, float] = self.evaluator.evaluate(len(self.dataloader.dataset))
        return found


class ItePruneValLoop(_Loop):
    """Validates, then writes the structure and the sliced weights as they are now."""

    def run(self) -> dict[str, float]:
        """One pass over the validation data."""
        metrics: dict[str, float] = super().run()
        subnet, static = sliced(self.algorithm)
        if is_main_process():
            folder = Path(self.runner.work_dir)
            write_mapping(folder / SUBNET, subnet)
            save_state_dict(static, folder / SUBNET_WEIGHTS)
        return metrics


class SlimmableValLoop(_Loop):
    """Validates every subnet that is trained; its metrics are called ``subnet_<i>.*``."""

    needs = SlimmableNetwork

    def run(self) -> dict[str, float]:
        """One pass over the validation data with each."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        self.runner.model.eval()
        algorithm = self.algorithm
        metrics: dict[str, float] = {}
        for index in sorted(algorithm.trained):
            algorithm.mutator.switch(index)
            metrics |= {f"subnet_{index}.{key}": value for key, value in self.score(self.runner.model).items()}
        algorithm.settle()
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics


class AutoSlimGreedySearchLoop(_Loop):
    """Greedy slimming in the place of a training loop: ``train_cfg=dict(type='AutoSlimGreedySearchLoop', ...)``.

    From the largest subnet down, each step takes one unit one choice smaller, the one that costs the least score.
    Subnets are sliced copies whose batch norms are recalibrated, so that the supernet stays as it is. Every target
    writes ``FLOPS_<target>M.yaml``; ``greedy_search.json`` lets an interrupted search go on.

    Args:
        runner: mmengine's.
        dataloader: of the samples that score.
        evaluator: what is measured.
        target_flops: multiply-adds to reach, in millions.
        score_key: metric that counts, the higher the better.
        calibration_batches: batches of the runner's training data that recalibrate a subnet; 0: none.
        resume_from: a ``greedy_search.json``.
        estimator_cfg: taken for mmrazor's sake: the mutator's graph is what is counted on.
    """

    needs = AutoSlim
    STATE = "greedy_search.json"

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        evaluator: Any,
        target_flops: Sequence[float],
        score_key: str = "accuracy/top1",
        calibration_batches: int = 10,
        resume_from: str | None = None,
        estimator_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(runner, dataloader, evaluator)
        self.target_flops = list(target_flops)
        self.score_key = score_key
        self.calibration_batches = calibration_batches
        self.resume_from = resume_from
        self.found: dict[float, Scored] = {}
        """Subnet by target, once the loop has run."""
        self.stop_training = False

    # What the runner asks of a training loop.
    iter = max_iters = epoch = 0
    max_epochs = 1

    def run(self) -> dict[str, float]:
        """Search, and write what is found.

        Raises:
            ModelError: a target is below the smallest subnet.
        """
        algorithm = self.algorithm
        costs = algorithm.costs
        bounded = Bounded(
            SearchSpace.of_mutator(algorithm.mutator),
            lambda subnet: {"macs": costs.mega_macs(costs.of_choices(subnet))},
        )
        search = GreedySearch(bounded, targets=self.target_flops)
        known = self._known()
        while candidates := search.ask():
            results = []
            for subnet in candidates:
                key = json.dumps(subnet, sort_keys=True)
                if key not in known:
                    known[key] = self._score(algorithm, subnet)
                results.append(Scored(subnet=subnet, score=known[key], costs=bounded.costs(subnet)))
            search.tell(results)
            self._save(known)
            macs = bounded.costs(search.current)["macs"]
            self.runner.logger.info(f"greedy slimming: {macs:.4g} M multiply-adds", extra={"screen": True})
        self.found = search.found
        self._write(algorithm)
        return {f"flops_{target:g}M": one.value for target, one in self.found.items()}

    def _score(self, algorithm: AutoSlim, subnet: Mapping[str, Any]) -> float:
        algorithm.set_subnet(subnet)
        model = BaseAlgorithm(sliced(algorithm)[1], algorithm.data_preprocessor).eval()
        if self.calibration_batches:
            batches = itertools.islice(self.runner.train_dataloader, self.calibration_batches)
            recalibrate(model, batches, forward=lambda _, data: model.val_step(data))
        metrics = self.score(model)
        if self.score_key not in metrics:
            raise ModelError(f"no metric is called '{self.score_key}'", hint=nearest(self.score_key, metrics))
        return float(metrics[self.score_key])

    def _known(self) -> dict[str, float]:
        if self.resume_from is None:
            return {}
        return {str(key): float(value) for key, value in read_mapping(self.resume_from).items()}

    def _save(self, known: Mapping[str, float]) -> None:
        if is_main_process():
            write_mapping(Path(self.runner.work_dir) / self.STATE, known)

    def _write(self, algorithm: AutoSlim) -> None:
        for target, one in self.found.items():
            algorithm.set_subnet(one.subnet)
            subnet = sliced(algorithm)[0]
            if is_main_process():
                write_mapping(Path(self.runner.work_dir) / f"FLOPS_{target:g}M.yaml", subnet)
        algorithm.settle()


LOOPS: dict[str, type] = {
    "AutoSlimGreedySearchLoop": AutoSlimGreedySearchLoop,
    "ItePruneValLoop": ItePruneValLoop,
    "SlimmableValLoop": SlimmableValLoop,
}
