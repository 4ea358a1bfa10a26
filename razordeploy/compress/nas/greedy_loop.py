"""Training of a supernet on paths that have proved good (GreedyNAS, arXiv 2003.11236)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.runner import IterBasedTrainLoop
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from razordeploy.compress.algorithm.base import unwrap
from razordeploy.compress.nas.search.cost import SupernetCosts
from razordeploy.compress.nas.search.limits import Bounded, Limits
from razordeploy.compress.nas.search.sampler import GreedySampler
from razordeploy.compress.nas.search.space import SearchSpace, Subnet
from razordeploy.errors import RecipeError
from razordeploy.subnet.agree import agree


class GreedySamplerTrainLoop(IterBasedTrainLoop):
    """Iterations in which the algorithm's random subnets come more and more from a pool of good ones.

    Every ``top_k`` iterations ``num_samples`` fresh subnets are judged by their loss on a few held-out batches, and the
    best ``top_k`` join the pool. The first process judges and draws for all.

    Args:
        runner: mmengine's.
        dataloader: training batches.
        max_iters: iterations.
        dataloader_val: held-out batches; None: the runner's validation data.
        val_begin: as of mmengine's loop, like ``val_interval``.
        val_interval: see there.
        constraints_range: range by indicator, in millions; ``flops`` are multiply-accumulates here, as in mmrazor.
        num_candidates: most subnets in the pool.
        num_samples: as of ``GreedySampler``, like ``top_k``, ``prob_schedule``, ``init_prob`` and ``max_prob``.
        top_k: see there.
        prob_schedule: see there.
        schedule_start_iter: its ``schedule_start``.
        schedule_end_iter: its ``schedule_end``.
        init_prob: see there.
        max_prob: see there.
        num_val_batches: batches that a subnet is judged on.
    """

    def __init__(
        self,
        runner: Any,
        dataloader: Any,
        max_iters: int,
        dataloader_val: Any = None,
        val_begin: int = 1,
        val_interval: int = 1000,
        constraints_range: Mapping[str, Sequence[float]] | None = None,
        num_candidates: int = 1000,
        num_samples: int = 10,
        top_k: int = 5,
        prob_schedule: str = "linear",
        schedule_start_iter: int = 10_000,
        schedule_end_iter: int = 144_360,
        init_prob: float = 0.0,
        max_prob: float = 0.8,
        num_val_batches: int = 4,
    ) -> None:
        super().__init__(runner, dataloader, max_iters, val_begin, val_interval)
        self.algorithm: Any = unwrap(runner.model)
        mutator = getattr(self.algorithm, "mutator", None)
        if mutator is None:
            raise RecipeError(f"GreedySamplerTrainLoop: {type(self.algorithm).__name__} has no mutator, so no subnets")
        held_out = dataloader_val if dataloader_val is not None else getattr(runner, "val_dataloader", None)
        if held_out is None:
            raise RecipeError("GreedySamplerTrainLoop: no held-out data", hint="dataloader_val=dict(...)")
        loader = runner.build_dataloader(held_out) if isinstance(held_out, Mapping) else held_out
        self.batches = list(itertools.islice(iter(loader), num_val_batches))
        self.top_k = top_k
        self.sampler = GreedySampler(
            self._bounded(constraints_range),
            seed=int(getattr(runner, "seed", 0) or 0),
            num_samples=num_samples,
            top_k=top_k,
            pool_size=max(num_candidates, top_k),
            prob_schedule=prob_schedule,
            schedule_start=schedule_start_iter,
            schedule_end=schedule_end_iter,
            init_prob=init_prob,
            max_prob=max_prob,
        )
        self._original = mutator.sample_choices

    def run(self) -> Any:
        """Train; the mutator samples as before when it ends."""
        attributes = vars(self.algorithm.mutator)
        attributes["sample_choices"] = self.sample_choices
        try:
            return super().run()
        finally:
            del attributes["sample_choices"]

    def run_iter(self, data_batch: Any) -> None:
        """One iteration; refreshes the pool first where it is time."""
        if self._iter % self.top_k == 0 and self.sampler.probability(self._iter + self.top_k) > 0:
            self.refresh()
        super().run_iter(data_batch)

    def refresh(self) -> None:
        """Judge fresh subnets and keep the best."""
        before = self.algorithm.mutator.current_choices
        # Every process judges the same paths, and the first one's losses count: the pools stay equal.
        self.sampler.refresh(lambda paths: agree(lambda: self.scores(paths)))
        for name, members in self.algorithm.mutator.search_groups.items():
            for member in members:
                member.current_choice = before[name]

    def sample_choices(self, kind: str = "random") -> dict[str, Any]:
        """As of the mutator; random ones by the sampler."""
        if kind != "random":
            found: dict[str, Any] = self._original(kind)
            return found
        return agree(lambda: self.sampler.sample(self._iter))

    @torch.no_grad()
    def scores(self, paths: Sequence[Subnet]) -> list[float | None]:
        """The negative loss of each subnet on the held-out batches, with the batches' own statistics."""
        found: list[float | None] = []
        with batch_statistics(self.algorithm):
            for path in paths:
                self.algorithm.mutator.set_choices(path)
                losses = [float(self._loss(batch)) for batch in self.batches]
                found.append(-sum(losses) / len(losses))
        return found

    def _loss(self, data: Any) -> Any:
        batch = self.algorithm.data_preprocessor(_copied(data), False)
        model = self.algorithm.architecture
        losses = model(**batch, mode="loss") if isinstance(batch, Mapping) else model(*batch, mode="loss")
        return self.algorithm.parse_losses(losses)[0]

    def _bounded(self, ranges: Mapping[str, Sequence[float]] | None) -> Bounded:
        mutator = self.algorithm.mutator
        space = SearchSpace.of_mutator(mutator)
        if not ranges:
            return Bounded(space)
        known = {"flops": "macs", "macs": "macs", "params": "params"}
        for name in ranges:
            if name not in known:
                raise RecipeError(f"GreedySamplerTrainLoop: unknown constraint '{name}'", hint="flops or params")
        limits = {known[name]: (float(low), float(high)) for name, (low, high) in ranges.items()}
        batch = self.algorithm.data_preprocessor(_copied(self.batches[0]), False)
        inputs = batch["inputs"] if isinstance(batch, Mapping) else batch[0]
        return Bounded(space, SupernetCosts(self.algorithm.architecture, mutator, (inputs[:1],)), Limits(limits))


def _copied(data: Any) -> Any:
    # A preprocessor may change the batch in place.
    return dict(data) if isinstance(data, dict) else data


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch norms use the statistics of the batch, and gather none; everything else is in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    tracking = [norm.track_running_stats for norm in norms]
    model.eval()
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm, tracked in zip(norms, tracking, strict=True):
            norm.track_running_stats = tracked
        for module, training in modes:
            module.training = training
