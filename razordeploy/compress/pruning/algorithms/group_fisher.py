"""Group Fisher pruning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from razordeploy.capture.checkpoint import load_into
from razordeploy.compress.algorithm.base import BaseAlgorithm
from razordeploy.compress.algorithm.build import build
from razordeploy.compress.algorithm.build_model import beside, build_architecture
from razordeploy.compress.algorithm.step import apply_gradients
from razordeploy.compress.algorithm.weights import pretrained
from razordeploy.compress.pruning.algorithms.base import PruningAlgorithm
from razordeploy.compress.pruning.algorithms.slimmable import read_subnet
from razordeploy.compress.pruning.clear import clear_removed
from razordeploy.errors import CheckpointError, ModelError, RecipeError
from razordeploy.subnet.fix import export_fix_subnet, load_fix_subnet
from razordeploy.subnet.mutators.channel import ChannelMutator
from razordeploy.subnet.mutators.pruners import GroupFisherChannelMutator


class GroupFisherAlgorithm(PruningAlgorithm):
    """Prunes the channel of the least Fisher information every ``interval`` steps (Liu et al. 2021, arXiv 2108.00708).

    Args:
        architecture: the trained model to be pruned.
        mutator: config of a ``GroupFisherChannelMutator``; its units' ``normalization_type`` says what the information
            is divided by.
        interval: steps from one pruning to the next; the information of all of them counts.
        data_preprocessor: of the batches; None: the architecture's own.
        target_flop_ratio: stop pruning, and go on training, once the multiply-adds are down to this share; None: never.
        init_cfg: see ``PruningAlgorithm``.
    """

    mutator_type: ClassVar[type[ChannelMutator]] = GroupFisherChannelMutator

    def __init__(
        self,
        architecture: Any,
        mutator: Any = None,
        interval: int = 10,
        data_preprocessor: Any = None,
        target_flop_ratio: float | None = None,
        init_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(architecture, mutator, data_preprocessor, init_cfg)
        if isinstance(interval, bool) or not isinstance(interval, int) or interval < 1:
            raise RecipeError(f"GroupFisherAlgorithm: expected an interval of at least 1, got {interval!r}")
        if target_flop_ratio is not None and not 0 < target_flop_ratio <= 1:
            raise RecipeError(
                f"GroupFisherAlgorithm: expected target_flop_ratio above 0 and up to 1, got {target_flop_ratio}"
            )
        if not self.mutator.mutable_units:
            raise ModelError(
                "GroupFisherAlgorithm: no unit can be pruned",
                hint="default_args=dict(mutate_linear=True) prunes those that a linear layer reads",
            )
        self.interval = interval
        self.target_flop_ratio = target_flop_ratio
        self.pruning_stopped = False

    @property
    def flop_ratio(self) -> float:
        """Multiply-adds at the current widths, as a share of all."""
        return self.costs.now().macs / self.costs.whole.macs

    def train_step(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        """One step of the weights, whose information is recorded; at the end of an interval a channel goes."""
        if self.pruning_stopped or self._reached():
            self.pruning_stopped = True
            return self._train(data, optim_wrapper)
        self.mutator.start_record_info()
        try:
            log = self._train(data, optim_wrapper)
            self.mutator.end_record_info()
            self.mutator.update_imp()
        finally:
            self.mutator.end_record_info()
            self.mutator.reset_recorded_info()
        if (self.schedule.iteration + 1) % self.interval == 0:
            self.mutator.try_prune()
            self.mutator.reset_imp()
        return log

    def _reached(self) -> bool:
        return self.target_flop_ratio is not None and self.flop_ratio <= self.target_flop_ratio

    def _train(self, data: Any, optim_wrapper: Any) -> dict[str, Tensor]:
        with optim_wrapper.optim_context(self):
            losses = self._run_forward(self.data_preprocessor(data, True), mode="loss")
        total, log = self.parse_losses(losses)
        optim_wrapper.backward(total)
        apply_gradients(optim_wrapper)
        return dict(log)


def group_fisher_sub_model(
    algorithm: Any, divisor: int = 1, init_cfg: Mapping[str, Any] | None = None, table: Mapping[str, Any] | None = None
) -> nn.Module:
    """The plain, sliced model of a Group Fisher checkpoint: mmrazor's ``GroupFisherSubModel``.

    Args:
        algorithm: a ``GroupFisherAlgorithm`` or its config, whose ``init_cfg`` names the checkpoint.
        divisor: numbers of channels are rounded up to a multiple of it, as far as there are channels.
        init_cfg: a checkpoint of the sliced model, loaded afterwards.
        table: what ``algorithm`` may name.

    Raises:
        CheckpointError: the checkpoint is missing, or is another model's.
    """
    if isinstance(algorithm, Mapping):
        config = copy.deepcopy(dict(algorithm))
        path = pretrained(config.pop("init_cfg", None))
        names = {"GroupFisherAlgorithm": GroupFisherAlgorithm} if table is None else table
        built: BaseAlgorithm = build(config, names, "algorithm")
        if path is not None:
            load_into(built, beside(path))
    else:
        built = algorithm
    widen(built.mutator, divisor)
    static = export_fix_subnet(built, "mutator", slice_weight=True)[1]
    assert static is not None
    return _loaded(static, init_cfg)


def group_fisher_deploy_sub_model(
    architecture: Any,
    fix_subnet: str | Mapping[str, Any],
    divisor: int = 1,
    parse_cfg: Mapping[str, Any] | None = None,
    init_cfg: Mapping[str, Any] | None = None,
) -> nn.Module:
    """The plain model of a structure: mmrazor's ``GroupFisherDeploySubModel``.

    Args:
        architecture: the unpruned model or its config.
        fix_subnet: number or ratio of channels by unit, or the file that holds them.
        divisor: as of ``group_fisher_sub_model``.
        parse_cfg: as of a channel mutator.
        init_cfg: a checkpoint of the sliced model.

    Raises:
        ModelError: the file is of another model.
    """
    model = build_architecture(architecture, "architecture")
    choices = dict(fix_subnet) if isinstance(fix_subnet, Mapping) else read_subnet(fix_subnet)
    config: dict[str, Any] = {"channel_unit_cfg": {"units": {k: {"choice": v} for k, v in choices.items()}}}
    if parse_cfg is not None:
        config["parse_cfg"] = dict(parse_cfg)
    if divisor > 1:
        mutator = ChannelMutator(**copy.deepcopy(config))
        mutator.prepare_from_supernet(copy.deepcopy(model))
        widen(mutator, divisor)
        config["channel_unit_cfg"] = {"units": {n: {"choice": c} for n, c in mutator.choice_template.items()}}
    return _loaded(load_fix_subnet(model, config), init_cfg)


def widen(mutator: ChannelMutator, divisor: int) -> None:
    """Keep as many channels more as every unit's number needs to be a multiple of ``divisor``, or all of them.

    What comes back are the first of the removed channels, with weights of zero: what the model computes stays the same.

    Raises:
        RecipeError: ``divisor`` is no number of at least 1.
    """
    if isinstance(divisor, bool) or not isinstance(divisor, int) or divisor < 1:
        raise RecipeError(f"expected a divisor of at least 1, got {divisor!r}")
    if divisor > 1:
        clear_removed(mutator, every=True)
    for unit in mutator.mutable_units:
        kept, step = unit.mutable_channel.activated_channels, math.lcm(divisor, unit.segment_step)
        wanted = min(unit.num_channels, -(-kept // step) * step)
        if wanted > kept and len(unit.segments) > 1:
            unit.current_choice = wanted
        elif wanted > kept:
            mask = unit.mask.clone()
            mask[(~mask).nonzero().flatten()[: wanted - kept]] = True
            unit.restore_mask(mask)


def _loaded(model: nn.Module, init_cfg: Mapping[str, Any] | None) -> nn.Module:
    path = pretrained(init_cfg)
    if init_cfg is not None and path is None:
        raise CheckpointError(f"expected init_cfg=dict(type='Pretrained', checkpoint=...), got {dict(init_cfg)}")
    if path is not None:
        load_into(model, beside(path))
    return model


SUB_MODELS: dict[str, Callable[..., nn.Module]] = {
    "GroupFisherDeploySubModel": group_fisher_deploy_sub_model,
    "GroupFisherSubModel": group_fisher_sub_model,
}
"""Functions that a config may name in place of a model."""
